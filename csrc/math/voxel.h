// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Decisions about a voxel's eps and mask and about the factor of a sum, for both devices alike.
#pragma once

#include "common.h"

namespace nec {

template <typename T>
NEC_INLINE T not_a_number() {
  return T(__builtin_nanf(""));
}

// A bad value of a map makes the loss NaN, never a plausible number.

// An eps has to be positive and finite.
template <typename T>
NEC_INLINE T checked_eps(T eps) {
  const T finite = choose(eps - eps == T(0), eps, not_a_number<T>());
  return choose(eps > T(0), finite, not_a_number<T>());
}

// A weight of a mask must not be negative.
template <typename T>
NEC_INLINE T checked_mask(T weight) {
  return choose(weight >= T(0), weight, not_a_number<T>());
}

// d loss / d (sum over voxels). `voxels` is their number, or the sum of the mask. A mean over none
// is 0 with gradient 0: a patch without brain must not stop a training.
NEC_INLINE double loss_factor(double weight, bool mean, double voxels) {
  if (!mean) return weight;
  return voxels == 0 ? 0 : weight / voxels;
}

}  // namespace nec
