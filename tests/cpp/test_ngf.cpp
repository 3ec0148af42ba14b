// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/math/ngf.h at one voxel: wherever a term says that it is in range it has the digits of its
// type, for every eps that the callers let through.

#include <limits>
#include <random>

#include "check.h"
#include "dense.h"
#include "math/ngf.h"

namespace {

using dense::Real;
using nec::EpsMode;
using nec::Form;
using nec::Formula;
using nec::Range;
using nec::Term;
using nec::Vec;

std::mt19937 generator(2);

// A magnitude between 10^low and 10^high.
Real power(Real low, Real high) {
  return std::pow(10, std::uniform_real_distribution<Real>(low, high)(generator));
}

template <int Dim, typename T>
Vec<Dim, T> random_vector(Real length) {
  Vec<Dim, T> vector;
  for (T& component : vector.v) {
    component = T(length * std::uniform_real_distribution<Real>(-1, 1)(generator));
  }
  return vector;
}

template <Formula F, int Dim, typename T>
void test_range(EpsMode mode, Form form) {
  const Real most = std::log10(std::sqrt(Real(Range<T>::squares_max)));
  const Real eps_low = std::log10(Real(Range<T>::eps_min));
  long inside = 0, outside = 0;
  for (int repeat = 0; repeat < 20000; ++repeat) {
    const auto d = random_vector<Dim, T>(power(eps_low - 3, most + 1));
    const auto e = random_vector<Dim, T>(power(eps_low - 3, most + 1));
    const T eps_d = T(power(eps_low, -eps_low)), eps_e = T(power(eps_low, -eps_low));
    const auto factors = nec::FormFactors<T>::of(mode, form);
    const Term<T> term = nec::ngf_term<F>(d, e, eps_d, eps_e, factors);
    ++(term.in_range ? inside : outside);
    if (!term.in_range) continue;
    Real wide_d[3] = {}, wide_e[3] = {};
    std::copy(d.v, d.v + Dim, wide_d);
    std::copy(e.v, e.v + Dim, wide_e);
    const auto want = dense::voxel_loss(mode, form, Dim, wide_d, wide_e, eps_d, eps_e);
    const Real a = std::sqrt(Real(dot(d, d))), b = std::sqrt(Real(dot(e, e)));
    char what[200];
    std::snprintf(what, sizeof what,
                  "mode %d, form %d, %dD, %zu bytes, |d| %Lg, |e| %Lg, eps %Lg %Lg", int(mode),
                  int(form), Dim, sizeof(T), a, b, Real(eps_d), Real(eps_e));
    const Real digits = 32 * std::numeric_limits<T>::epsilon();
    CHECK_NEAR(term.value, dense::value_of(form, want.loss), digits, what);
    // A gradient is judged by the longest that vectors of these lengths can have: the error of t,
    // whose summands cancel, is passed on. A factor below the smallest number of the type may
    // vanish.
    const bool linear = form == Form::signed_ || form == Form::absolute;
    const Real n = a / (a + eps_d), m = mode == EpsMode::augmented ? 1 : b / (b + eps_e);
    const Real scale = (linear || mode == EpsMode::augmented ? m : n * m * m) / (a + eps_d);
    const Real smallest = Real(std::numeric_limits<T>::min()) * (a + b + 1 / eps_d);
    for (int k = 0; k < Dim; ++k) {
      const Real got = Real(term.cross) * wide_e[k] + Real(term.self_d) * wide_d[k];
      CHECK_NEAR(got, want.by_d[k], digits * scale + smallest, what);
    }
    if (F == Formula::any_additive || F == Formula::any_root)
      CHECK_NEAR(term.by_eps_d, want.by_eps[0], digits * scale + smallest, what);
  }
  CHECK(inside > 100 && outside > 100, "both sides of the limit were visited");
}

template <Formula F>
void test_formula(EpsMode mode, Form form) {
  test_range<F, 2, float>(mode, form);
  test_range<F, 3, float>(mode, form);
  test_range<F, 2, double>(mode, form);
  test_range<F, 3, double>(mode, form);
}

}  // namespace

int main() {
  test_formula<Formula::additive>(EpsMode::additive, Form::squared);
  test_formula<Formula::quadrature>(EpsMode::quadrature, Form::squared);
  for (const Form form : {Form::squared, Form::signed_, Form::absolute, Form::cross}) {
    test_formula<Formula::any_additive>(EpsMode::additive, form);
    test_formula<Formula::any_root>(EpsMode::quadrature, form);
    if (form != Form::cross) test_formula<Formula::any_root>(EpsMode::augmented, form);
  }
  return check::finish("test_ngf");
}
