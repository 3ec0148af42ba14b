// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// csrc/math/convert.h: every 16-bit number to float and back, and every place where the rounding of
// a float changes its mind.

#include <algorithm>
#include <cmath>
#include <limits>

#include "check.h"
#include "math/convert.h"

namespace {

using nec::BFloat16;
using nec::Half;

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

}  // namespace

int main() {
  test_format<HalfFormat>();
  test_format<BFloat16Format>();
  return check::finish("test_convert");
}
