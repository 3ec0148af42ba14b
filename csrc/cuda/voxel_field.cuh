// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The alignment of two gradients at one voxel and its derivatives, for values of any magnitude.
#pragma once

#include "../math/ngf.h"
#include "strips.cuh"

namespace nec::cuda {

template <int Dim, typename T>
struct VoxelField {
  T squared_alignment;     // t^2
  Vec<Dim, T> by_d, by_e;  // dl/dd, dl/de
};

// False where a voxel is outside of Range<T>; then none of them means anything.
template <EpsMode Mode, int N, int Dim, typename T>
NEC_DEVICE bool voxel_fields(const Vec<Dim, T> (&d)[N], const Vec<Dim, T> (&e)[N],
                             const Strip<T>& eps_d, const Strip<T>& eps_e,
                             VoxelField<Dim, T> (&fields)[N]) {
  bool in_range = true;
  NEC_UNROLL
  for (int i = 0; i < N; ++i) {
    const Term<T> term = ngf_term<Mode>(d[i], e[i], eps_d.v[i], eps_e.v[i]);
    in_range &= term.in_range;
    fields[i].squared_alignment = term.t * term.t;
    NEC_UNROLL
    for (int k = 0; k < Dim; ++k) {
      fields[i].by_d.v[k] = term.cross * e[i].v[k] + term.self_d * d[i].v[k];
      fields[i].by_e.v[k] = term.cross * d[i].v[k] + term.self_e * e[i].v[k];
    }
  }
  return in_range;
}

// Divides a gradient and its eps by the larger of them, about, which leaves the alignment as it is.
// Returns one over the divisor.
template <int Dim, typename T>
NEC_DEVICE T normalize(Vec<Dim, T>& d, T& eps) {
  T largest = eps > Range<T>::vanishing ? eps : Range<T>::vanishing;
  NEC_UNROLL
  for (int k = 0; k < Dim; ++k) {
    const T length = d.v[k] < 0 ? -d.v[k] : d.v[k];
    largest = length > largest ? length : largest;
  }
  const T most = 1 / Range<T>::vanishing;
  const T scale = reciprocal(largest < most ? largest : most);
  NEC_UNROLL
  for (int k = 0; k < Dim; ++k) d.v[k] *= scale;
  eps *= scale;
  return scale;
}

// The same outside of Range<T>, at several times the price: the derivatives as they are written in
// ngf.h's source, in an order in which nothing overflows or vanishes that the result does not. A
// NaN or an infinity makes it NaN.
template <int Dim, typename T>
NEC_DEVICE VoxelField<Dim, T> normalized_voxel_field(EpsMode mode, Vec<Dim, T> d, Vec<Dim, T> e,
                                                     T eps_d, T eps_e) {
  const T d_scale = normalize(d, eps_d), e_scale = normalize(e, eps_e);
  const bool additive = mode == EpsMode::additive;
  const T aa = squared_length(d), bb = squared_length(e), p = dot(d, e);
  const T a = square_root(aa), b = square_root(bb);
  const T A = additive ? a + eps_d : square_root(aa + eps_d * eps_d);
  const T B = additive ? b + eps_e : square_root(bb + eps_e * eps_e);
  const T q = reciprocal(A * B), t = p * q;
  const T along_d = p * reciprocal((additive ? a : A) * A);
  const T along_e = p * reciprocal((additive ? b : B) * B);
  VoxelField<Dim, T> field;
  field.squared_alignment = t * t;
  NEC_UNROLL
  for (int k = 0; k < Dim; ++k) {
    field.by_d.v[k] = t * d_scale * q * (along_d * d.v[k] - e.v[k]);
    field.by_e.v[k] = t * e_scale * q * (along_e * e.v[k] - d.v[k]);
  }
  return field;
}

}  // namespace nec::cuda
