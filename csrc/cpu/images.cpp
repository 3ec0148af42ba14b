// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "images.h"

#include <algorithm>

namespace nec::cpu {
namespace {

// Beyond the row's end the whole vectors of a stencil still read one element.
constexpr int64_t kRowTail = kLanes;

}  // namespace

// -------------------------------------------------------------------------------------------------
// Rows of a piece
// -------------------------------------------------------------------------------------------------

template <typename T>
PieceRows<T>::PieceRows(const Problem& of_problem, const Piece& of_piece, int margin)
    : problem(of_problem), piece(of_piece), kernels(row_kernels<T>()) {
  for (int k = 0; k < 3; ++k) {
    around.lo[k] = std::max<int64_t>(piece.box.lo[k] - margin, 0);
    around.hi[k] = std::min(piece.box.hi[k] + margin, problem.size[k + 2]);
  }
  begin = piece.box.lo[2] - around.lo[2];
  end = piece.box.hi[2] - around.lo[2];
  width = around.hi[2] - around.lo[2];
  image_pitch = width + 2;
  span = (piece.images - 1) * image_pitch + width;
  length = ceil_div(span, int64_t(kLanes)) * kLanes;
  pitch = kPad + length + kRowTail;
  plane_rows = around.hi[1] - around.lo[1] + 2;
}

template <typename T>
void PieceRows<T>::load(const View& view, int64_t z, int64_t y, T* row) const {
  const char* from = address(view, z, y, around.lo[2]);
  for (int64_t i = 0; i < piece.images; ++i, row += image_pitch, from += image_stride(view))
    kernels.load[int(view.dtype)](from, view.stride[4], width, row);
}

template <typename T>
void PieceRows<T>::store(const View& view, int64_t z, int64_t y, const T* row) const {
  char* to = address(view, z, y, piece.box.lo[2]);
  row += begin;
  for (int64_t i = 0; i < piece.images; ++i, row += image_pitch, to += image_stride(view))
    kernels.store[int(view.dtype)](row, end - begin, to, view.stride[4]);
}

template <typename T>
void PieceRows<T>::fill_between(T* row, T value) const {
  for (int64_t i = 0; i < piece.images; ++i) {
    T* image = row + i * image_pitch;
    std::fill(image + width, i + 1 < piece.images ? image + image_pitch : row + length, value);
  }
}

template <typename T>
double PieceRows<T>::weighted_sum(T* values, const T* weight) const {
  for (int64_t x = end; x < span; x += image_pitch)
    std::fill_n(values + x, image_pitch - (end - begin), T(0));
  return kernels.weighted_sum(values + begin, weight + begin, span - width + end - begin);
}

// -------------------------------------------------------------------------------------------------
// Planes of both images
// -------------------------------------------------------------------------------------------------

template <typename T>
Images<T>::Images(const PieceRows<T>& rows, T* scratch)
    : rows_(rows), depth_(rows.problem.size[2]), height_(rows.problem.size[3]), scratch_(scratch) {
  const Box& around = rows.around;
  staged_[0] = around.lo[2] > 0 ? -1 : 0;
  staged_[1] = around.hi[2] < rows.problem.size[4] ? rows.width + 1 : rows.width;
  for (int image = 0; image < 2; ++image) {
    const View& view = rows.problem.image[image];
    const int64_t bytes = element_bytes(view.dtype);
    sources_[image] = {rows.kernels.load[int(view.dtype)],
                       rows.address(view, 0, 0, around.lo[2] + staged_[0]),
                       rows.image_stride(view),
                       view.stride[2] * bytes,
                       view.stride[3] * bytes,
                       view.stride[4],
                       view.stride[4] == 1 ? (staged_[1] - staged_[0]) * bytes : 0};
  }
}

template <typename T>
T* Images<T>::plane(int image, int64_t z) const {
  const int slot = int(std::clamp<int64_t>(z, 0, depth_ - 1) % kRing);
  return scratch_ + (image * kRing + slot) * rows_.plane_rows * rows_.pitch;
}

template <typename T>
int64_t Images<T>::row_in_plane(int64_t y) const {
  return (std::clamp<int64_t>(y, 0, height_ - 1) - rows_.around.lo[1] + 1) * rows_.pitch;
}

template <typename T>
void Images<T>::point_at_plane(int64_t z) {
  for (int image = 0; image < 2; ++image)
    for (int dz = -1; dz <= 1; ++dz) planes_[image][dz + 1] = plane(image, z + dz);
}

template <typename T>
void Images<T>::point_at_row(int64_t y, const T* (&input)[3][3], const T* (&target)[3][3]) const {
  for (int dy = 0; dy < 3; ++dy) {
    const int64_t row = row_in_plane(y + dy - 1);
    for (int dz = 0; dz < 3; ++dz) {
      input[dz][dy] = planes_[0][dz] + row;
      target[dz][dy] = planes_[1][dz] + row;
    }
  }
}

template <typename T>
void Images<T>::stage_row(int64_t z, int64_t y) {
  const int64_t width = rows_.width;
  if (z >= depth_ || y < 0 || y >= height_) return;
  for (int image = 0; image < 2; ++image) {
    const Source& s = sources_[image];
    const char* from = s.origin + z * s.plane + y * s.row;
    T* row = plane(image, z) + row_in_plane(y);
    for (int64_t left = rows_.piece.images;; row += rows_.image_pitch, from += s.image) {
      if (z + 1 < depth_) {
        // The row that follows at this place, a plane later: it arrives while this one is computed.
        const char* next = from + s.plane;
        for (int64_t k = 0; k < s.prefetched; k += kCacheLine) __builtin_prefetch(next + k, 0, 2);
      }
      s.load(from, s.element, staged_[1] - staged_[0], row + staged_[0]);
      if (staged_[0] == 0) row[-1] = row[0];
      if (--left == 0) break;
      if (staged_[1] == width) row[width] = row[width - 1];
    }
    // The last value continues the border, and gives the unused lanes something finite.
    std::fill(row + staged_[1], row + (rows_.length - rows_.span) + width + 1, row[staged_[1] - 1]);
  }
}

template struct PieceRows<float>;
template struct PieceRows<double>;
template class Images<float>;
template class Images<double>;

}  // namespace nec::cpu
