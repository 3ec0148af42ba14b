// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What a sweep of the general layout reads per voxel besides the images.
#pragma once

#include "../math/ngf.h"
#include "sweep_place.cuh"

namespace nec::cuda {

// False where a value is outside of Range<T>.
template <typename T, class Place>
NEC_DEVICE bool load_eps(const SweepArguments<T>& a, const Place& at, int image, int z,
                         Strip<T>& eps) {
  const Array& map = a.eps_map[image];
  eps = load_strip<T>(map, at.row(map, z), at.x, a.width);
  bool in_range = true;
  NEC_UNROLL
  for (int i = 0; i < Strip<T>::size; ++i) {
    T& value = eps.v[i];
    value *= a.eps_scale;
    // Never a plausible number from a bad one.
    if (!(value > 0 && value - value == 0)) value = not_a_number<T>();
    in_range &= value >= Range<T>::eps_min && value <= Range<T>::eps_max;
  }
  return in_range;
}

// Multiplies by upstream, and by 0 where the loss has no term.
template <typename T, class Place>
NEC_DEVICE void load_weight(const SweepArguments<T>& a, const Place& at, int z, Strip<T>& weight) {
  if (a.upstream) {
    const auto upstream = load_strip<T>(a.upstream, at.row(a.upstream, z), at.x, a.width);
    NEC_UNROLL
    for (int i = 0; i < Strip<T>::size; ++i) weight.v[i] *= upstream.v[i];
  }
  const IntBox& terms = a.terms;
  const bool in_plane =
      z >= terms.lo[0] && z < terms.hi[0] && at.y >= terms.lo[1] && at.y < terms.hi[1];
  NEC_UNROLL
  for (int i = 0; i < Strip<T>::size; ++i) {
    const int x = at.x + i;
    if (!in_plane || x < terms.lo[2] || x >= terms.hi[2]) weight.v[i] = 0;
  }
}

}  // namespace nec::cuda
