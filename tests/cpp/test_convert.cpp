// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/math/convert.h: every 16-bit number to float and back, and the rounding of floats against a
// search for the nearest number of the type.

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "math/convert.h"

namespace {

using nec::BFloat16;
using nec::Half;

struct HalfFormat {
  using Type = Half;
  static constexpr int fraction_bits = 10, bias = 15;
  static constexpr const char* name = "half";
  static Half round(float x) { return nec::to_half(x); }
};

struct BFloat16Format {
  using Type = BFloat16;
  static constexpr int fraction_bits = 7, bias = 127;
  static constexpr const char* name = "bfloat16";
  static BFloat16 round(float x) { return nec::to_bfloat16(x); }
};

std::string hex(float x) {
  char text[40];
  std::snprintf(text, sizeof text, "%a", double(x));
  return text;
}

// What IEEE 754 says that the bits mean. Infinity is read as the number after the largest, which is
// what rounding to nearest measures it as.
template <typename Format>
double magnitude(int code) {
  const int exponent = code >> Format::fraction_bits;
  const int fraction = code & ((1 << Format::fraction_bits) - 1);
  const int significand = exponent ? fraction + (1 << Format::fraction_bits) : fraction;
  return std::ldexp(significand, std::max(exponent, 1) - Format::bias - Format::fraction_bits);
}

template <typename Format>
constexpr int kInfinity = 0x7fff >> Format::fraction_bits << Format::fraction_bits;

// The nearest of all codes, found by bisection; of two equally near ones the even one.
template <typename Format>
int nearest(double value) {
  static const std::vector<double> table = [] {
    std::vector<double> values;
    for (int code = 0; code <= kInfinity<Format>; ++code) values.push_back(magnitude<Format>(code));
    return values;
  }();
  const auto above = std::lower_bound(table.begin(), table.end(), value);
  if (above == table.end()) return kInfinity<Format>;
  const int code = int(above - table.begin());
  if (code == 0) return 0;
  const double up = *above - value, down = value - table[size_t(code) - 1];
  return up < down || (up == down && code % 2 == 0) ? code : code - 1;
}

template <typename Format>
void test_rounding(float value) {
  for (const float signed_value : {value, -value}) {
    const int sign = std::signbit(signed_value) ? 0x8000 : 0;
    CHECK(Format::round(signed_value).bits == (sign | nearest<Format>(std::fabs(double(value)))),
          std::string(Format::name) + " of " + hex(signed_value));
  }
}

template <typename Format>
void test_every_code() {
  for (int bits = 0; bits <= 0xffff; ++bits) {
    const float value = nec::to_float(typename Format::Type{uint16_t(bits)});
    const int code = bits & 0x7fff;
    const std::string what = std::string(Format::name) + " " + std::to_string(bits);
    CHECK(std::signbit(value) == bool(bits & 0x8000), what);
    if (code > kInfinity<Format>) {
      CHECK(std::isnan(value) && std::isnan(nec::to_float(Format::round(value))), what);
      continue;
    }
    const double infinity = std::numeric_limits<double>::infinity();
    CHECK(std::fabs(value) == (code == kInfinity<Format> ? infinity : magnitude<Format>(code)),
          what);
    CHECK(Format::round(value).bits == bits, what);
    CHECK(nec::load_as<double>(typename Format::Type{uint16_t(bits)}) == value, what);
  }
}

// The half way point above every number and its two neighbours, where rounding changes its mind:
// normal numbers, subnormal ones, the smallest, and the step to infinity.
template <typename Format>
void test_ties() {
  for (int code = 0; code < kInfinity<Format>; ++code) {
    const double low = magnitude<Format>(code), high = magnitude<Format>(code + 1);
    const float half_way = float(low / 2 + high / 2);
    test_rounding<Format>(half_way);
    test_rounding<Format>(std::nextafter(half_way, 0.0f));
    test_rounding<Format>(std::nextafter(half_way, std::numeric_limits<float>::infinity()));
  }
}

template <typename Format>
void test_format() {
  test_every_code<Format>();
  test_ties<Format>();
  std::mt19937 generator(3);
  for (int repeat = 0; repeat < 1000000; ++repeat) {
    const float value = nec::bits_to_float(uint32_t(generator()) & 0x7fffffffu);
    if (!std::isnan(value)) test_rounding<Format>(value);
  }
  test_rounding<Format>(std::numeric_limits<float>::max());
  test_rounding<Format>(std::numeric_limits<float>::infinity());
  // NaNs whose fraction is only in the bits that are cut off must not become infinity.
  for (uint32_t fraction = 1; fraction < (1u << 23); fraction <<= 1) {
    const float nan = nec::bits_to_float(0x7f800000u | fraction);
    CHECK(std::isnan(nec::to_float(Format::round(nan))), "NaN " + std::to_string(fraction));
  }
}

}  // namespace

int main() {
  test_format<HalfFormat>();
  test_format<BFloat16Format>();
  return check::finish("test_convert");
}
