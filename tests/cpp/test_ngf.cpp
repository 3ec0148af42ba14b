// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/math/ngf.h at one voxel: its derivatives against finite differences of the loss of dense.h,
// and the range that each type is trusted in against the formulas of dense.h.

#include <cfloat>
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

Real uniform(Real low, Real high) {
  return std::uniform_real_distribution<Real>(low, high)(generator);
}

template <int Dim, typename T>
Vec<Dim, T> random_vector(Real length) {
  Real v[Dim], squared = 0;
  for (Real& component : v) {
    component = uniform(-1, 1);
    squared += component * component;
  }
  Vec<Dim, T> vector;
  for (int k = 0; k < Dim; ++k) vector.v[k] = T(v[k] * length / std::sqrt(squared));
  return vector;
}

template <EpsMode Mode, int Dim, typename T>
std::string name(const Vec<Dim, T>& d, const Vec<Dim, T>& e, T eps_d, T eps_e) {
  char text[200];
  std::snprintf(text, sizeof text, "mode %d, %dD, %zu bytes, |d| %Lg, |e| %Lg, eps %Lg %Lg",
                int(Mode), Dim, sizeof(T), std::sqrt(Real(dot(d, d))), std::sqrt(Real(dot(e, e))),
                Real(eps_d), Real(eps_e));
  return text;
}

template <EpsMode Mode, int Dim>
Real loss(const Vec<Dim, Real>& d, const Vec<Dim, Real>& e, Real eps_d, Real eps_e) {
  const Real t = dense::alignment(Mode, Dim, d.v, e.v, eps_d, eps_e).t;
  return 1 - t * t / 2;
}

// By the first vector: test_symmetry has the second one.
template <EpsMode Mode, int Dim>
void test_finite_differences() {
  for (int repeat = 0; repeat < 200; ++repeat) {
    const auto d = random_vector<Dim, Real>(std::pow(10, uniform(-2, 1)));
    const auto e = random_vector<Dim, Real>(std::pow(10, uniform(-2, 1)));
    const Real eps_d = std::pow(10, uniform(-2, 0)), eps_e = std::pow(10, uniform(-2, 0));
    const Term<Real> term = nec::ngf_term<Mode>(d, e, eps_d, eps_e);
    const std::string what = name<Mode>(d, e, eps_d, eps_e);
    CHECK(term.in_range, what);
    const Real value = loss<Mode>(d, e, eps_d, eps_e);
    CHECK_NEAR(1 - term.t * term.t / 2, value, 1e-14, what);
    CHECK(value >= 0.5 && value <= 1, what);

    const Real step = 1e-5L;  // of the order of the cube root of a double's rounding error
    for (int k = 0; k < Dim; ++k) {
      auto before = d, after = d;
      before.v[k] -= step;
      after.v[k] += step;
      const Real change = loss<Mode>(after, e, eps_d, eps_e) - loss<Mode>(before, e, eps_d, eps_e);
      const Real by_d = change / (2 * step);
      // Third derivatives reach 1 / eps^3 = 1e6, times step^2.
      CHECK_NEAR(term.cross * e.v[k] + term.self_d * d.v[k], by_d, 1e-4 * std::fabs(by_d) + 1e-6,
                 what);
    }
  }
}

// The loss is symmetric: exchanging the images exchanges the factors, to the last bit.
template <EpsMode Mode, int Dim, typename T>
void test_symmetry() {
  for (int repeat = 0; repeat < 100; ++repeat) {
    const auto d = random_vector<Dim, T>(uniform(0, 2)), e = random_vector<Dim, T>(uniform(0, 2));
    const T eps_d = T(0.1), eps_e = T(0.3);
    const Term<T> here = nec::ngf_term<Mode>(d, e, eps_d, eps_e);
    const Term<T> there = nec::ngf_term<Mode>(e, d, eps_e, eps_d);
    CHECK(here.t == there.t && here.cross == there.cross && here.self_d == there.self_e &&
              here.self_e == there.self_d,
          name<Mode>(d, e, eps_d, eps_e));
  }
}

// In a constant region nothing is aligned with anything, and nothing is 0 / 0.
template <EpsMode Mode, int Dim, typename T>
void test_zero() {
  const Vec<Dim, T> zero{}, e = random_vector<Dim, T>(1);
  for (const T eps : {Range<T>::eps_min, T(0.15), Range<T>::eps_max}) {
    for (const auto& other : {zero, e}) {
      const Term<T> term = nec::ngf_term<Mode>(zero, other, eps, eps);
      CHECK(term.in_range && term.t == 0 && term.cross == 0 && term.self_d == 0 && term.self_e == 0,
            name<Mode>(zero, other, eps, eps));
    }
  }
}

// Wherever a term says that it is in range it has the digits of its type, for every eps that the
// callers let through; what is out of range says so.
template <EpsMode Mode, int Dim, typename T>
void test_range() {
  const Real most = std::log10(std::sqrt(Real(Range<T>::squares_max)));
  const Real eps_low = std::log10(Real(Range<T>::eps_min)), eps_high = -eps_low;
  long inside = 0, outside = 0;
  for (int repeat = 0; repeat < 20000; ++repeat) {
    const auto d = random_vector<Dim, T>(std::pow(10, uniform(eps_low - 3, most + 1)));
    const auto e = random_vector<Dim, T>(std::pow(10, uniform(eps_low - 3, most + 1)));
    const T eps_d = T(std::pow(10, uniform(eps_low, eps_high)));
    const T eps_e = T(std::pow(10, uniform(eps_low, eps_high)));
    const Term<T> term = nec::ngf_term<Mode>(d, e, eps_d, eps_e);
    if (!term.in_range) {
      ++outside;
      continue;
    }
    ++inside;
    Real wide_d[3] = {}, wide_e[3] = {};
    for (int k = 0; k < Dim; ++k) {
      wide_d[k] = d.v[k];
      wide_e[k] = e.v[k];
    }
    const auto want = dense::alignment(Mode, Dim, wide_d, wide_e, eps_d, eps_e);
    const std::string what = name<Mode>(d, e, eps_d, eps_e);
    const Real digits = 32 * std::numeric_limits<T>::epsilon();
    CHECK_NEAR(term.t, want.t, digits, what);
    // A gradient is judged by the longest that vectors of these lengths can have: the error of t,
    // whose summands cancel, is passed on. A factor below the smallest number of the type may
    // vanish.
    const Real a = std::sqrt(Real(dot(d, d))), b = std::sqrt(Real(dot(e, e)));
    const Real scale = a / (a + eps_d) * std::pow(b / (b + eps_e), 2) / (a + eps_d);
    const Real smallest = Real(std::numeric_limits<T>::min()) * (a + b + 1 / eps_d);
    for (int k = 0; k < Dim; ++k) {
      const Real got = Real(term.cross) * wide_e[k] + Real(term.self_d) * wide_d[k];
      CHECK_NEAR(got, want.by_d[k], digits * scale + smallest, what);
    }
  }
  CHECK(inside > 100 && outside > 100, "both sides of the limit were visited");
  for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
    Vec<Dim, T> d = random_vector<Dim, T>(1), e = random_vector<Dim, T>(1);
    d.v[Dim - 1] = bad;
    CHECK(!nec::ngf_term<Mode>(d, e, T(1), T(1)).in_range, name<Mode>(d, e, T(1), T(1)));
    CHECK(!nec::ngf_term<Mode>(e, d, T(1), T(1)).in_range, name<Mode>(e, d, T(1), T(1)));
  }
}

template <EpsMode Mode, int Dim>
void test_mode() {
  test_finite_differences<Mode, Dim>();
  const auto test_type = [](auto number) {
    using T = decltype(number);
    test_symmetry<Mode, Dim, T>();
    test_zero<Mode, Dim, T>();
    test_range<Mode, Dim, T>();
  };
  test_type(float());
  test_type(double());
}

}  // namespace

int main() {
  test_mode<EpsMode::additive, 2>();
  test_mode<EpsMode::additive, 3>();
  test_mode<EpsMode::quadrature, 2>();
  test_mode<EpsMode::quadrature, 3>();
  return check::finish("test_ngf");
}
