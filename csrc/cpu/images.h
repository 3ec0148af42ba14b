// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The rows of a piece, and the planes of both images around the one that is swept, in scratch
// memory that stays in the second-level cache.
//
// Pairs of images with short rows are swept several at a time: a row of scratch memory then has a
// row of each, with an element on both sides for the border:
//
//   |<- kPad ->|  first pair  | |  second pair  | |  ...  |  up to whole vectors  |
//              x = 0        width  pair_pitch           span                   length
#pragma once

#include <initializer_list>

#include "memory.h"
#include "row_kernels.h"
#include "tiling.h"

namespace nec::cpu {

constexpr int kRing = 3;  // planes, or rows, that are kept: as many as a stencil sees

// Where the rows of a piece are in memory and in scratch memory, and the way between both.
template <typename T>
struct PieceRows {
  // `margin`: voxels around the piece that are looked at too, as far as the array goes.
  PieceRows(const Problem& problem, const Piece& piece, int margin);

  // Takes scratch memory for so many rows of each of these, `pitch` apart, and makes `first` point
  // at x = 0 of the first of them.
  struct ScratchRows {
    T** first;
    int64_t count;
  };
  void take_scratch(std::initializer_list<ScratchRows> all) const;

  // The address of a voxel of the first pair, and the bytes from there to the next pair.
  char* address(const View& v, int64_t z, int64_t y, int64_t x) const {
    const int64_t element = piece.first[0] * v.stride[0] + piece.first[1] * v.stride[1] +
                            z * v.stride[2] + y * v.stride[3] + x * v.stride[4];
    return static_cast<char*>(v.data) + element * element_bytes(v.dtype);
  }
  int64_t pair_stride(const View& view) const {
    return view.stride[piece.joining] * element_bytes(view.dtype);
  }

  // Reads a row of a map, with the margin.
  void load(const View& view, int64_t z, int64_t y, T* row) const;
  // Writes a row of an output, without the margin.
  void store(const View& view, int64_t z, int64_t y, const T* row) const;
  // Fills what lies between the rows of two pairs, and after the last one.
  void fill_between(T* row, T value) const;
  // Adds values times weight of the piece to the sums of the lanes. Values between two pairs become
  // 0.
  void add_products(T* values, const T* weight, double* sums) const;

  const Problem& problem;
  const Piece& piece;
  const RowKernels<T>& kernels;
  Box around;            // the piece and the margin; x = 0 of a row is around.lo[2]
  int64_t begin, end;    // x of the piece itself
  int64_t width;         // of a row of one pair
  int64_t pair_pitch;    // elements from one pair to the next
  int64_t span, length;  // of all pairs' rows; rounded up to whole vectors
  int64_t pitch;         // elements from one row of scratch memory to the next
  int64_t plane_rows;    // of the piece and its margin, and one more on each side
};

// The planes of both images that a stencil sees, staged row by row: converted to T, the border
// replicated along x. Rows beyond the array are those of the border, which is how replication costs
// nothing along z and y.
//
// Where a row in memory is already what a row of scratch memory would be but for the border, rows
// are read in place, and only the one along which a difference is taken is staged.
template <typename T>
class Images {
 public:
  static int64_t scratch_rows(const PieceRows<T>& rows) {
    return 2 * (kRing * rows.plane_rows + 1);
  }

  Images(const PieceRows<T>& rows, T* scratch);

  // Makes a row ready that is in the array; others need nothing.
  void prepare_row(int64_t z, int64_t y);
  // From here on `row` counts planes from plane z.
  void point_at_plane(int64_t z);
  // Rows y - 1, y and y + 1 of the planes around, [dz + 1][dy + 1], as CotangentRow has them. Where
  // rows are read in place, it stages the one in the middle.
  void point_at_row(int64_t y, const T* (&input)[3][3], const T* (&target)[3][3]);

 private:
  // An image in memory, for what every row asks: where row 0 of plane 0 is, from read_begin_ on,
  // and strides in bytes.
  struct Source {
    typename RowKernels<T>::Load load;
    const char* origin;
    int64_t pair, plane, row;
    int64_t element;     // in elements
    int64_t prefetched;  // bytes of a row
    // The planes that a stencil sees, in memory or staged.
    bool in_place;
    int64_t pitch;      // elements from one row to the next
    int64_t first_row;  // y of the first row
  };

  bool can_read_in_place(const View& view) const;
  T* staged_plane(int image, int64_t z) const;
  int64_t row_in_plane(const Source& source, int64_t y) const;
  void stage(const Source& source, const char* from, T* row) const;

  const PieceRows<T>& rows_;
  const int64_t depth_, height_;  // of the array
  T* const middle_;               // [image], the row that is staged where others are read in place
  T* const scratch_;              // [image][z % kRing][y + 1 - around.lo[1]], rows
  // Range of x that are read: one voxel more on each side, where the array has it.
  const int64_t read_begin_, read_end_;
  Source sources_[2];
  const T* planes_[2][3];  // [image][dz + 1], around the plane that is swept
};

}  // namespace nec::cpu
