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

template <EpsMode Mode, int Dim, typename T>
void test_range() {
  const Real most = std::log10(std::sqrt(Real(Range<T>::squares_max)));
  const Real eps_low = std::log10(Real(Range<T>::eps_min));
  long inside = 0, outside = 0;
  for (int repeat = 0; repeat < 20000; ++repeat) {
    const auto d = random_vector<Dim, T>(power(eps_low - 3, most + 1));
    const auto e = random_vector<Dim, T>(power(eps_low - 3, most + 1));
    const T eps_d = T(power(eps_low, -eps_low)), eps_e = T(power(eps_low, -eps_low));
    const Term<T> term = nec::ngf_term<Mode>(d, e, eps_d, eps_e);
    ++(term.in_range ? inside : outside);
    if (!term.in_range) continue;
    Real wide_d[3] = {}, wide_e[3] = {};
    std::copy(d.v, d.v + Dim, wide_d);
    std::copy(e.v, e.v + Dim, wide_e);
    const auto want = dense::alignment(Mode, Dim, wide_d, wide_e, eps_d, eps_e);
    const Real a = std::sqrt(Real(dot(d, d))), b = std::sqrt(Real(dot(e, e)));
    char what[200];
    std::snprintf(what, sizeof what, "mode %d, %dD, %zu bytes, |d| %Lg, |e| %Lg, eps %Lg %Lg",
                  int(Mode), Dim, sizeof(T), a, b, Real(eps_d), Real(eps_e));
    const Real digits = 32 * std::numeric_limits<T>::epsilon();
    CHECK_NEAR(term.t, want.t, digits, what);
    // A gradient is judged by the longest that vectors of these lengths can have: the error of t,
    // whose summands cancel, is passed on. A factor below the smallest number of the type may
    // vanish.
    const Real scale = a / (a + eps_d) * std::pow(b / (b + eps_e), 2) / (a + eps_d);
    const Real smallest = Real(std::numeric_limits<T>::min()) * (a + b + 1 / eps_d);
    for (int k = 0; k < Dim; ++k) {
      const Real got = Real(term.cross) * wide_e[k] + Real(term.self_d) * wide_d[k];
      CHECK_NEAR(got, want.by_d[k], digits * scale + smallest, what);
    }
  }
  CHECK(inside > 100 && outside > 100, "both sides of the limit were visited");
}

template <EpsMode Mode>
void test_mode() {
  test_range<Mode, 2, float>();
  test_range<Mode, 3, float>();
  test_range<Mode, 2, double>();
  test_range<Mode, 3, double>();
}

}  // namespace

int main() {
  test_mode<EpsMode::additive>();
  test_mode<EpsMode::quadrature>();
  return check::finish("test_ngf");
}
