// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The decisions and formulas that need no sweep: the axis that makes the rows, half
// types, and the terms of one voxel.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "check.h"
#include "dense.h"
#include "math/convert.h"
#include "math/ngf.h"
#include "ops/axes.h"

namespace {

using dense::Real;
using nec::BFloat16;
using nec::EpsMode;
using nec::Form;
using nec::Formula;
using nec::Half;
using nec::Range;
using nec::Term;
using nec::Vec;
using Sizes = std::vector<int64_t>;

// --- csrc/ops/axes.h: which axis makes the rows ---

struct Expected {
  Sizes size, memory;   // the axes, slowest first
  int row_axes, order;  // one digit for each axis
  int64_t step = 1;
};

void test_axes() {
  const Sizes forth = {0, 1, 2}, back = {2, 1, 0}, rows = {0, 1}, columns = {1, 0};
  const Expected cases[] = {
      {{90, 80, 32}, forth, 3, 12},   // a long row stays
      {{90, 80, 31}, forth, 3, 21},   // a short one gives way to the axis before it
      {{90, 80, 31}, forth, 1, 12},   // but not on a GPU
      {{31, 80, 90}, back, 3, 201},   // whatever the layout
      {{90, 20, 10}, forth, 3, 120},  // nor is the middle long: the slowest
      {{90, 20, 10}, forth, 2, 21},   // which has to remain where planes are summed
      {{90, 64, 10}, forth, 3, 21},   // the first that is long, not the longest
      {{19, 18, 10}, forth, 3, 12},   // not for less than twice as many
      {{90, 23, 22}, forth, 3, 120},  // of a stride of 506
      {{90, 24, 22}, forth, 3, 12},   // 528 are too many
      {{2, 70}, rows, 2, 1},          //
      {{70, 2}, rows, 2, 10},         //
      {{70, 2}, rows, 1, 1},          //
      {{70, 2}, columns, 2, 10},      //
      {{70, 2}, rows, 2, 1, 600},     // a stride of 1200
  };
  for (const Expected& c : cases) {
    Sizes stride(c.size.size());
    int64_t step = c.step;
    for (size_t k = c.memory.size(); k-- > 0;) {
      stride[size_t(c.memory[k])] = step;
      step *= c.size[size_t(c.memory[k])];
    }
    int order = 0;
    for (const int axis : nec::sweep_order(c.size, stride, c.row_axes)) order = 10 * order + axis;
    CHECK(order == c.order, std::to_string(order) + " in place of " + std::to_string(c.order));
  }
}

// --- csrc/math/convert.h: every 16-bit number to float and back, and every place where the
// rounding of a float changes its mind ---

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct HalfFormat {
  using Type = Half;
  static constexpr int fraction_bits = 10, bias = 15;
  static constexpr const char* name = "half ";
  static Half round(float x) { return nec::to_half(x); }
};

struct BFloat16Format {
  using Type = BFloat16;
  static constexpr int fraction_bits = 7, bias = 127;
  static constexpr const char* name = "bfloat16 ";
  static BFloat16 round(float x) { return nec::to_bfloat16(x); }
};

// The number that bits without a sign mean in IEEE 754. Infinity is read as the number after the
// largest, as rounding to nearest measures it.
template <typename Format>
double magnitude(int code) {
  const int exponent = code >> Format::fraction_bits;
  const int fraction = code & ((1 << Format::fraction_bits) - 1);
  const int significand = exponent ? fraction + (1 << Format::fraction_bits) : fraction;
  return std::ldexp(significand, std::max(exponent, 1) - Format::bias - Format::fraction_bits);
}

template <typename Format>
void check_rounding(float value, int code) {
  const std::string what = Format::name + std::to_string(code);
  CHECK(Format::round(value).bits == code, what);
  CHECK(Format::round(-value).bits == (code | 0x8000), "minus " + what);
}

template <typename Format>
void test_format() {
  constexpr int infinity = 0x7fff >> Format::fraction_bits << Format::fraction_bits;
  for (int code = 0; code <= 0x7fff; ++code) {
    const typename Format::Type bits{uint16_t(code)}, negative{uint16_t(code | 0x8000)};
    const float value = nec::to_float(bits);
    const std::string what = Format::name + std::to_string(code);
    if (code > infinity) {
      CHECK(std::isnan(value) && std::isnan(nec::to_float(Format::round(value))), what);
      continue;
    }
    CHECK(value == (code == infinity ? kInfinity : magnitude<Format>(code)), what);
    CHECK(nec::to_float(negative) == -value && std::signbit(nec::to_float(negative)), what);
    CHECK(nec::load_as<double>(bits) == value, what);
    check_rounding<Format>(value, code);
    if (code == infinity) continue;
    // Half way to the next number the even one is chosen. Rounding is monotonic: nothing between
    // these needs a check.
    const float half_way = float((magnitude<Format>(code) + magnitude<Format>(code + 1)) / 2);
    check_rounding<Format>(half_way, code + code % 2);
    check_rounding<Format>(std::nextafter(half_way, 0.0f), code);
    check_rounding<Format>(std::nextafter(half_way, kInfinity), code + 1);
  }
  check_rounding<Format>(std::numeric_limits<float>::max(), infinity);
  // NaNs whose fraction is only in the bits that are cut off must not become infinity.
  for (uint32_t fraction = 1; fraction < (1u << 23); fraction <<= 1) {
    const float nan = nec::bits_to_float(0x7f800000u | fraction);
    CHECK(std::isnan(nec::to_float(Format::round(nan))), "NaN " + std::to_string(fraction));
  }
}

// --- csrc/math/ngf.h at one voxel: wherever a term says that it is in range it has the digits of
// its type, for every eps that the callers let through ---

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

void test_terms() {
  test_formula<Formula::additive>(EpsMode::additive, Form::squared);
  test_formula<Formula::quadrature>(EpsMode::quadrature, Form::squared);
  for (const Form form : {Form::squared, Form::signed_, Form::absolute, Form::cross}) {
    test_formula<Formula::any_additive>(EpsMode::additive, form);
    test_formula<Formula::any_root>(EpsMode::quadrature, form);
    if (form != Form::cross) test_formula<Formula::any_root>(EpsMode::augmented, form);
  }
}

}  // namespace

int main() {
  test_axes();
  test_format<HalfFormat>();
  test_format<BFloat16Format>();
  test_terms();
  return check::finish("test_math");
}
