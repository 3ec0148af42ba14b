// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "images.h"

#include <algorithm>

#include "../math/stencil.h"

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
  pair_pitch = width + 2;
  span = (piece.pairs - 1) * pair_pitch + width;
  length = ceil_div(span, int64_t(kLanes)) * kLanes;
  pitch = kPad + length + kRowTail;
  plane_rows = around.hi[1] - around.lo[1] + 2;
}

template <typename T>
void PieceRows<T>::take_scratch(std::initializer_list<ScratchRows> all) const {
  int64_t count = 0;
  for (const ScratchRows& rows : all) count += rows.count;
  T* next = thread_scratch().get<T>(count * pitch) + kPad;
  for (const ScratchRows& rows : all) {
    *rows.first = next;
    next += rows.count * pitch;
  }
}

template <typename T>
void PieceRows<T>::load(const View& view, int64_t z, int64_t y, T* row) const {
  const char* from = address(view, z, y, around.lo[2]);
  for (int64_t i = 0; i < piece.pairs; ++i, row += pair_pitch, from += pair_stride(view))
    kernels.load[int(view.dtype)](from, view.stride[4], width, row);
}

template <typename T>
void PieceRows<T>::store(const View& view, int64_t z, int64_t y, const T* row) const {
  char* to = address(view, z, y, piece.box.lo[2]);
  row += begin;
  for (int64_t i = 0; i < piece.pairs; ++i, row += pair_pitch, to += pair_stride(view))
    kernels.store[int(view.dtype)](row, end - begin, to, view.stride[4]);
}

template <typename T>
void PieceRows<T>::fill_between(T* row, T value) const {
  for (int64_t i = 0; i < piece.pairs; ++i) {
    T* own = row + i * pair_pitch;
    std::fill(own + width, i + 1 < piece.pairs ? own + pair_pitch : row + length, value);
  }
}

template <typename T>
void PieceRows<T>::add_products(T* values, const T* weight, double* sums) const {
  for (int64_t x = end; x < span; x += pair_pitch)
    std::fill_n(values + x, pair_pitch - (end - begin), T(0));
  kernels.add_products(values + begin, weight + begin, span - width + end - begin, sums);
}

// -------------------------------------------------------------------------------------------------
// Planes of both images
// -------------------------------------------------------------------------------------------------

template <typename T>
Images<T>::Images(const PieceRows<T>& rows, T* scratch)
    : rows_(rows),
      depth_(rows.problem.size[2]),
      height_(rows.problem.size[3]),
      middle_(scratch),
      scratch_(scratch + 2 * rows.pitch),
      read_begin_(rows.around.lo[2] > 0 ? -1 : 0),
      read_end_(rows.around.hi[2] < rows.problem.size[4] ? rows.width + 1 : rows.width) {
  const Box& around = rows.around;
  for (int image = 0; image < 2; ++image) {
    const View& view = rows.problem.image[image];
    const int64_t bytes = element_bytes(view.dtype);
    const bool in_place = can_read_in_place(view);
    sources_[image] = {rows.kernels.load[int(view.dtype)],
                       rows.address(view, 0, 0, around.lo[2] + read_begin_),
                       rows.pair_stride(view),
                       view.stride[2] * bytes,
                       view.stride[3] * bytes,
                       view.stride[4],
                       view.stride[4] == 1 ? (read_end_ - read_begin_) * bytes : 0,
                       in_place,
                       in_place ? view.stride[3] : rows.pitch,
                       in_place ? 0 : around.lo[1] - 1};
  }
}

// A row of whole vectors, so that no lane beyond its end meets a number of another row.
template <typename T>
bool Images<T>::can_read_in_place(const View& view) const {
  const bool on_axes =
      with_stencil(rows_.problem.op, [](auto stencil) { return decltype(stencil)::on_axes; });
  const bool whole_rows = read_begin_ == 0 && read_end_ == rows_.problem.size[4];
  return on_axes && whole_rows && rows_.piece.pairs == 1 && rows_.length == rows_.width &&
         view.dtype == (sizeof(T) == 8 ? DType::float64 : DType::float32) && view.stride[4] == 1;
}

template <typename T>
T* Images<T>::staged_plane(int image, int64_t z) const {
  return scratch_ + (image * kRing + int(z % kRing)) * rows_.plane_rows * rows_.pitch;
}

template <typename T>
int64_t Images<T>::row_in_plane(const Source& s, int64_t y) const {
  return (std::clamp<int64_t>(y, 0, height_ - 1) - s.first_row) * s.pitch;
}

template <typename T>
void Images<T>::point_at_plane(int64_t z) {
  for (int image = 0; image < 2; ++image) {
    const Source& s = sources_[image];
    for (int dz = 0; dz < 3; ++dz) {
      const int64_t at = std::clamp<int64_t>(z + dz - 1, 0, depth_ - 1);
      // Rows that are read in place are whole ones: `origin` is their x = 0 too.
      planes_[image][dz] = s.in_place ? reinterpret_cast<const T*>(s.origin + at * s.plane)
                                      : staged_plane(image, at);
    }
  }
}

template <typename T>
void Images<T>::point_at_row(int64_t y, const T* (&input)[3][3], const T* (&target)[3][3]) {
  for (int image = 0; image < 2; ++image) {
    const Source& s = sources_[image];
    auto& rows = image == 0 ? input : target;
    for (int dy = 0; dy < 3; ++dy) {
      const int64_t row = row_in_plane(s, y + dy - 1);
      for (int dz = 0; dz < 3; ++dz) rows[dz][dy] = planes_[image][dz] + row;
    }
    if (s.in_place) {
      T* staged = middle_ + image * rows_.pitch;
      stage(s, reinterpret_cast<const char*>(rows[1][1]), staged);
      rows[1][1] = staged;
    }
  }
}

template <typename T>
void Images<T>::prepare_row(int64_t z, int64_t y) {
  if (z >= depth_ || y < 0 || y >= height_) return;
  for (int image = 0; image < 2; ++image) {
    const Source& s = sources_[image];
    const char* from = s.origin + z * s.plane + y * s.row;
    if (z + 1 < depth_) {
      // The row that follows at this place, a plane later: it arrives while this one is computed.
      const char* next = from + s.plane;
      for (int64_t left = rows_.piece.pairs; left > 0; --left, next += s.pair)
        for (int64_t k = 0; k < s.prefetched; k += kCacheLine) __builtin_prefetch(next + k, 0, 2);
    }
    if (!s.in_place) stage(s, from, staged_plane(image, z) + row_in_plane(s, y));
  }
}

template <typename T>
void Images<T>::stage(const Source& s, const char* from, T* row) const {
  const int64_t width = rows_.width;
  for (int64_t left = rows_.piece.pairs;; row += rows_.pair_pitch, from += s.pair) {
    s.load(from, s.element, read_end_ - read_begin_, row + read_begin_);
    if (read_begin_ == 0) row[-1] = row[0];
    if (--left == 0) break;
    if (read_end_ == width) row[width] = row[width - 1];
  }
  // The last value continues the border, and gives the unused lanes something finite.
  std::fill(row + read_end_, row + (rows_.length - rows_.span) + width + 1, row[read_end_ - 1]);
}

template struct PieceRows<float>;
template struct PieceRows<double>;
template class Images<float>;
template class Images<double>;

}  // namespace nec::cpu
