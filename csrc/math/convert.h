// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// float16 and bfloat16 to and from float, as integer arithmetic that every compiler turns into
// vector instructions on every instruction set (gcc leaves the hardware's own conversions scalar).
#pragma once

#include <cstdint>

#include "common.h"

namespace nec {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

NEC_INLINE float bits_to_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

NEC_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

NEC_INLINE float to_float(BFloat16 x) { return bits_to_float(uint32_t(x.bits) << 16); }

// The exponent of a half, moved to its place in a float, is too small by 127 - 15 = 112: one exact
// multiplication by 2^112 repairs normal and subnormal numbers alike.
NEC_INLINE float to_float(Half x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7fffu) << 13;
  const uint32_t finite = float_to_bits(bits_to_float(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;  // infinity and NaN keep their fraction
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  return bits_to_float(sign | (magnitude >= 0x0f800000u ? special : finite));
}

// Round to nearest, ties to even: adding just under half a unit, and one more where the kept part
// is odd.
NEC_INLINE BFloat16 to_bfloat16(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {uint16_t(nan ? 0x7fc0u : rounded)};
}

NEC_INLINE Half to_half(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rebiased = magnitude - (112u << 23);
  const uint32_t normal = (rebiased + 0x0fffu + ((rebiased >> 13) & 1u)) >> 13;
  // Below 2^-14 a half has the fixed spacing 2^-24, that of a float in [1/2, 1): let an addition
  // round.
  const uint32_t subnormal = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t finite = magnitude < (113u << 23) ? subnormal : normal;
  const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // 65520 is half way between the largest half and what would come next: it and beyond is infinity.
  return {uint16_t(sign | (magnitude >= 0x477ff000u ? overflow : finite))};
}

// One name for every pair of types.
template <typename T, typename S>
NEC_INLINE T load_as(S x) {
  if constexpr (sizeof(S) == 2) {
    return T(to_float(x));
  } else {
    return T(x);
  }
}

template <typename D, typename T>
NEC_INLINE void store_as(T x, D& out) {
  out = D(x);
}
template <typename T>
NEC_INLINE void store_as(T x, Half& out) {
  out = to_half(float(x));
}
template <typename T>
NEC_INLINE void store_as(T x, BFloat16& out) {
  out = to_bfloat16(float(x));
}

}  // namespace nec
