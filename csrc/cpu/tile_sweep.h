// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// One tile, swept along z. At every step
//
//   1. the next plane of both images is staged: converted to T, with the border replicated along x,
//   2. the field dl/dd of the plane before it is computed, once per voxel,
//   3. the gradient of the plane before that is gathered from three planes of the field,
//
// so each image is read from memory once and the gradient written once; the rest happens in the cache.
#pragma once

#include <limits>
#include <vector>

#include "../math/ngf.h"
#include "../math/stencil.h"
#include "row_kernels.h"
#include "tiles.h"

namespace nec::cpu {

// Scratch memory of one thread, kept from call to call: fresh pages would cost more than a small image.
class Scratch {
 public:
  // Room for n elements of T, on a cache line. Valid until the next call.
  template <typename T>
  T* get(int64_t n) {
    bytes_.resize(std::max<size_t>(bytes_.size(), size_t(n) * sizeof(T) + 64));
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<T*>((address + 63) / 64 * 64);
  }

 private:
  std::vector<char> bytes_;
};

template <typename T>
class TileSweep {
 public:
  TileSweep(const Problem& problem, const Piece& piece, Scratch& scratch);
  // Adds the sum of mask * t^2 of slab k of the piece to partials[k * step].
  void run(double* partials, int64_t step, int64_t slab);
  // The same with the sum of the mask, and nothing else computed.
  void sum_mask(double* partials, int64_t step, int64_t slab);

 private:
  static constexpr int kPlanes = 3;  // a ring: three planes are all that a stencil sees

  // Planes and rows of the ring, at x = field_.lo[2]. The pointers of rows outside the array are those of the
  // border row, which is how replication costs nothing along y and z.
  T* image_row(int image, int64_t z, int64_t y) const;
  T* field_row(int gradient, int axis, int64_t z, int64_t y) const;

  void stage_plane(int64_t z);
  void compute_field(int64_t z);
  double compute_field_row(int64_t z, int64_t y);
  void gather_plane(int64_t z);
  void continue_field_row(T* row, int axis) const;
  // A row of voxel values (eps, mask, upstream) at x = field_.lo[2].
  void load_values(const View& view, int64_t z, int64_t y, T* row) const;
  void load_eps(const View& view, int64_t z, int64_t y, T* row);
  bool weight_varies() const { return p_.mask || p_.upstream || p_.terms_are_partial(); }
  void load_weight(int64_t z, int64_t y);
  void store(const View& view, int64_t z, int64_t y, const T* row) const;
  char* address(const View& view, int64_t z, int64_t y, int64_t x) const;

  const Problem& p_;
  const Piece& piece_;
  const RowKernels<T>& kernels_;
  typename RowKernels<T>::Field field_kernel_, wide_kernel_;
  typename RowKernels<T>::Adjoint adjoint_kernel_;
  Gradients wanted_;
  int continuation_;
  bool eps_out_of_range_ = false;
  Box field_;         // where the field is computed: the piece and one voxel around it
  int64_t row_;       // elements from one row of scratch to the next
  int64_t length_;    // of a row, rounded up to whole vectors
  int64_t rows_;      // of a staged plane
  T *images_, *fields_;
  T *eps_[2], *weight_, *upstream_, *squared_alignment_, *output_;
  FieldRow<T> field_arguments_;
};

}  // namespace nec::cpu
