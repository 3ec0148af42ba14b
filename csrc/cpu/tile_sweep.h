// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// One tile, swept along z. At every plane, row by row, while what was just written is still in the
// first-level cache:
//
//   1. a row of the next plane of both images is staged: converted to T, the border replicated
//      along x,
//   2. the field dl/dd of a row is computed, once per voxel,
//   3. the field of three rows becomes one row of the adjoint; that completes a row of the gradient
//      of the plane before.
//
// Images with short rows are swept several at a time: a row of scratch memory then has a row of
// each, with an element on both sides for the border.
//
// So each image is read from memory once and the gradient written once. The planes in the scratch
// memory, which stay in the second-level cache, are three of each image and two of each gradient
// under way.
#pragma once

#include <algorithm>
#include <vector>

#include "row_kernels.h"
#include "tiles.h"

namespace nec::cpu {

// Scratch memory of one thread, kept from call to call: fresh pages would cost more than a small
// image.
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
  // Adds the sum of mask * t^2 of plane k of the piece to partials[k * step].
  void run(double* partials, int64_t step);
  // The same with the sum of the mask, and nothing else computed.
  void sum_mask(double* partials, int64_t step);

 private:
  static constexpr int kRing = 3;  // planes, or rows: as many as a stencil sees

  // An image in memory, for what every row asks: where row 0 of plane 0 is, and steps in bytes.
  struct Source {
    typename RowKernels<T>::Load load;
    const char* origin;
    int64_t image, plane, row;
    int64_t stride;      // of its elements
    int64_t prefetched;  // bytes of a row
  };

  void stage_row(int64_t z, int64_t y);
  void sweep_plane(int64_t z, double* sum);
  void point_at_plane(int64_t z);
  void compute_field(int64_t z, int64_t y);
  void finish_field_row(T* row, int axis) const;
  void compute_adjoint(int64_t z, int64_t y);
  void store_last_plane();
  double reduce_row(int64_t z, int64_t y);
  double sum_row(T* values) const;

  // All of these point at x = field_.lo[2] of the first image. Rows of the images beyond the array
  // are those of the border, which is how replication costs nothing along z and y.
  T* image_plane(int image, int64_t z) const;
  int64_t image_row(int64_t y) const;  // from the plane
  T* field_row(int gradient, int axis, int64_t y) const;
  T* gradient_row(int gradient, int which, int64_t y) const;  // 0: carried, 1: running

  // Rows of voxel values.
  void load_values(const View& view, int64_t z, int64_t y, T* row) const;
  // False where a value is outside of Range<T>.
  bool load_eps(const View& view, int64_t z, int64_t y, T* row);
  bool weight_varies() const { return p_.mask || p_.upstream; }
  void load_weight(int64_t z, int64_t y);
  void fill_between(T* row, int64_t begin, int64_t end, T value) const;
  void store(const View& view, int64_t z, int64_t y, const T* row) const;
  char* address(const View& view, int64_t z, int64_t y, int64_t x) const;  // of the first image
  int64_t image_step(const View& view) const {  // bytes from there to the next
    return view.stride[piece_.joining] * element_bytes(view.dtype);
  }

  const Problem& p_;
  const Piece& piece_;
  const RowKernels<T>& kernels_;
  typename RowKernels<T>::Field field_kernel_, wide_kernel_;
  typename RowKernels<T>::Adjoint adjoint_kernel_;
  int gradients_;          // 0, 1 or 2
  T eps_scale_;            // from intensity per spacing to a difference along the last axis
  T spread_[3], taps_[3];  // of the operator (math/stencil.h)
  int continuation_[2];
  bool stream_;               // the gradients are too large to be found in a cache later
  bool eps_in_range_ = true;  // of an eps that is the same for a whole image
  Box field_;                 // where the field is computed: the piece and one voxel around it
  int64_t width_;             // of a row of the field
  int64_t pitch_;             // elements from one image to the next in a row of scratch
  int64_t span_, length_;     // of all images' rows; rounded up to whole vectors
  int64_t staged_[2];         // of the images, at x = field_.lo[2] + this
  Source sources_[2];
  int64_t row_;   // elements from one row of scratch to the next
  int64_t rows_;  // of a plane of scratch: the field's, and one more on each side
  T *images_, *gradients_under_way_, *fields_;
  T *eps_[2], *weight_, *upstream_, *squared_alignment_, *output_;
  const T* planes_[2][3];  // of both images, around the plane that is swept
  FieldRow<T> field_arguments_;
  AdjointRow<T> adjoint_arguments_;
};

}  // namespace nec::cpu
