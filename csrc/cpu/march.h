// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Loss and gradient of one piece in one march along z. At every plane, row by row, while what was
// just written is still in the first-level cache:
//
//   1. a row of the next plane of both images is staged (images.h),
//   2. the cotangents dl/dd of a row are computed, once per voxel,
//   3. the cotangents of three rows become one row of the adjoint; that completes a row of the
//      gradient of the plane before.
//
// So each image is read from memory once and the gradient written once. The planes in the scratch
// memory, which stay in the second-level cache, are three of each image and two of each gradient
// under way.
#pragma once

#include "../math/stencil.h"
#include "images.h"
#include "maps.h"

namespace nec::cpu {

template <typename T>
class March {
 public:
  March(const Problem& problem, const Piece& piece);
  // Adds the sum of mask * value of plane k of the piece to partials[k * piece.partial_stride].
  void run(double* partials);

 private:
  double march_plane(int64_t z);  // the sum of mask * value in it
  void point_at_plane(int64_t z);
  void compute_cotangents(int64_t z, int64_t y);
  void continue_cotangents(T* row, int axis) const;
  void reduce_row(int64_t z, int64_t y);
  void compute_adjoint(int64_t z, int64_t y);
  void store_last_plane();

  // Rows of scratch memory.
  struct Memory {
    T* images;
    T* gradients;   // under way: [gradient][carried, running][y - around.lo[1]]
    T* cotangents;  // [gradient][y % kRing][axis]
    T* maps;
    T *value, *output;  // a row each
    T* by_eps;          // [image]
    T* columns;         // [image], three rows
  };
  Memory take_memory() const;
  int64_t gradient_rows() const { return gradients_ * 2 * rows_.plane_rows; }
  T* cotangents(int gradient, int64_t y) const;               // a row for each axis
  T* gradient_row(int gradient, int which, int64_t y) const;  // 0: carried, 1: running

  const Problem& p_;
  const Piece& piece_;
  const int gradients_;  // 0, 1 or 2
  const PieceRows<T> rows_;
  const AdjointTaps<T> taps_;
  const Memory memory_;
  Images<T> images_;
  Maps<T> maps_;
  const bool whole_rows_;           // the piece's rows are those of the array
  double sums_[kLanes];             // of mask * value in the plane, by lanes
  double not_summed_[kLanes] = {};  // the same of rows around the piece
  const LossOfValue loss_;
  typename RowKernels<T>::Cotangent cotangent_kernel_, wide_kernel_;
  typename RowKernels<T>::Adjoint adjoint_kernel_;
  bool stream_;  // the gradients are too large to be found in a cache later
  CotangentRow<T> cotangent_arguments_;
  AdjointRow<T> adjoint_arguments_;
};

}  // namespace nec::cpu
