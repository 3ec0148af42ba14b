// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Shared memory: a cell per thread, and where a thread finds those around it.
//
//   cell    [ cotangents of two planes | staged gradients of two planes, where there are some
//             | slot 0 | slot 1 | ... | pad ]                                strips of 16 bytes
//   slot    [ input, a strip per row | target, likewise | mask, likewise ]
//   edges   [ first and last voxel of the cotangents, of two planes | pad ]   beyond all cells
//
// All that a thread looks at is so at constant distances from a few addresses that never change.
// The distance from one cell to the next is odd, in strips or in voxels, so that the threads of a
// warp meet in no memory bank.
//
// A block has the images of one row more at each side than it has threads for, so there are more
// cells than threads. Where a thread has two rows, the first is in its own cell and the second in
// the one below: then what is above the first lies in its own cell too, and what is below the
// second in the other.
//
//             R = 2: rows of cells          R = 1
//   cell 0    row 0      row -1             row -1
//   cell 1    row 2      row 1              row 0
//   cell 2    row 4      row 3              row 1
#pragma once

#include "place.cuh"

namespace nec::cuda {

// `S`: the Stencil; `G`: gradients; `R`: rows of a thread.
template <typename T, int Dim, class S, int G, int R>
class Cells : public Place<T, Dim, R> {
  // Components of the cotangents that are looked at along y, or all around; and along x.
  static constexpr int kStripParts = S::on_axes ? Dim - 2 : Dim;
  static constexpr int kEdgeParts = S::on_axes ? 1 : Dim;
  static constexpr int kCotangentStrips = 2 * G * kStripParts * R;
  static constexpr int kEdges = 2 * G * kEdgeParts * R * 2;
  static constexpr int kEdgePitch = kEdges == 0 ? 0 : kEdges | 1;
  static constexpr int N = Strip<T>::size, kStripBytes = sizeof(Strip<T>);

 public:
  using Place<T, Dim, R>::a;
  static constexpr int kHaloRows = Dim == 2 ? 0 : R == 1 ? 2 : 1;

  static constexpr CellSizes sizes(bool masked, bool staged) {
    return {kCotangentStrips + (staged ? 2 * G * R : 0), (masked ? 3 : 2) * R,
            kEdgePitch * int(sizeof(T))};
  }

  NEC_DEVICE Cells(const SweepArguments<T>& arguments, void* shared) : Place<T, Dim, R>(arguments) {
    const Place<T, Dim, R>& at = *this;
    const Tiling& t = a.tiling;
    const int thread = int(threadIdx.x);
    cell_ = static_cast<char*>(shared) + thread * a.pitch;
    constexpr int kLast = int(sizeof(T)), kNext = kEdgePitch * int(sizeof(T));
    edges_ = kept<S::on_axes>((t.rows + kHaloRows) * a.row_bytes + thread * (kNext - a.pitch));
    // Beyond the border of the image, or of the block, where nothing that counts is computed, the
    // last voxel stands in: that is the thread's own.
    const bool has_left = at.column > 0;
    const bool has_right = at.column + 1 < t.strips && at.x + N < a.width;
    const bool has_up = Dim == 3 && at.row > 0;
    const bool has_down = Dim == 3 && at.row + 1 < t.rows && at.y + R < a.height;
    beside_[0] = kept<S::on_axes>(has_left ? int(sizeof(T)) * (N - 1) - a.pitch : 0);
    beside_[1] = kept<S::on_axes>(has_right ? a.pitch : int(sizeof(T)) * (N - 1));
    edges_beside_[0] = kept<S::on_axes>(edges_ + (has_left ? kLast - kNext : 0));
    edges_beside_[1] = kept<S::on_axes>(edges_ + (has_right ? kNext : kLast));
    const int up = has_up ? -t.strips : 0, down = has_down ? t.strips : 0;
    above_ = kept<S::on_axes>(up * a.pitch + (has_up ? R - 1 : 0) * kStripBytes);
    below_ = kept<S::on_axes>(down * a.pitch + (has_down ? 0 : R - 1) * kStripBytes);
    edges_up_ = up * kNext;
    edges_down_ = down * kNext;
  }

  // The strip of array m, 0 or 1 for the images, in row r: -1 to R. `slot`: of the plane, in bytes.
  NEC_DEVICE Strip<T>* image(int slot, int m, int r) const {
    const int cell = Dim == 2 ? 0 : R == 1 ? r + 1 : r > 0;
    const int in_cell = R == 1 ? 0 : r & 1;
    return reinterpret_cast<Strip<T>*>(cell_ + cell * a.row_bytes + slot +
                                       (m * R + in_cell) * kStripBytes);
  }
  // The voxel before a strip (`side` 0), or after it (1).
  NEC_DEVICE T beside(int side, const Strip<T>* strip) const {
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(strip) + beside_[side]);
  }
  // Element e of the block's row in which a strip of the thread lies.
  NEC_DEVICE T* element(Strip<T>* strip, int e) const {
    char* const first = reinterpret_cast<char*>(strip) - this->column * a.pitch;
    return reinterpret_cast<T*>(first + e / N * a.pitch) + e % N;
  }

  // Puts the cotangents of gradient g by component `axis`, in row r of plane z, where others see
  // them: those who look at this axis.
  NEC_DEVICE void put(int z, int g, int axis, int r, const Strip<T>& strip) const {
    const bool along_x = axis == Dim - 1;
    if (!S::on_axes || !along_x) *cotangents(cell_, z, g, axis, r) = strip;
    if (!S::on_axes || along_x) {
      T* const to = edges(cell_ + edges_, z, g, axis, r);
      to[0] = strip.v[0];
      to[1] = strip.v[N - 1];
    }
  }
  // A row r of gradient g in plane z that is to be written from here.
  NEC_DEVICE Strip<T>* staged(int z, int g, int r) const {
    return reinterpret_cast<Strip<T>*>(cell_) + kCotangentStrips + ((z & 1) * G + g) * R + r;
  }
  // The cotangents of the row above the thread's (-1), of its own, and of the one below (R); where
  // there is none, those of the nearest.
  NEC_DEVICE Strip<T> cotangent_strip(int z, int g, int axis, int r) const {
    return r < 0    ? *cotangents(cell_ + above_, z, g, axis, 0)
           : r >= R ? *cotangents(cell_ + below_, z, g, axis, 0)
                    : *cotangents(cell_, z, g, axis, r);
  }
  // The cotangent before row r (`side` 0), or after it (1); also of the rows above and below where
  // R is 1.
  NEC_DEVICE T cotangent_beside(int side, int z, int g, int axis, int r) const {
    const int to_row = r < 0 ? edges_up_ : r >= R ? edges_down_ : 0;
    return *edges(cell_ + edges_beside_[side] + to_row, z, g, axis, R == 1 ? 0 : r);
  }

 private:
  static NEC_DEVICE Strip<T>* cotangents(char* cell, int z, int g, int axis, int r) {
    constexpr int kPlane = G * kStripParts * R * kStripBytes;
    const int index = (g * kStripParts + (S::on_axes ? 0 : axis)) * R + r;
    return reinterpret_cast<Strip<T>*>(cell + (z & 1) * kPlane) + index;
  }
  static NEC_DEVICE T* edges(char* cell, int z, int g, int axis, int r) {
    constexpr int kPlane = G * kEdgeParts * R * 2 * int(sizeof(T));
    const int index = (g * kEdgeParts + (S::on_axes ? 0 : axis)) * R + r;
    return reinterpret_cast<T*>(cell + (z & 1) * kPlane) + index * 2;
  }

  char* cell_;  // of the thread
  // In bytes, from a strip to the voxel beside it; and from the cell to the cotangents above and
  // below it, to its edges, and to those beside, of which the rows around lie up and down.
  int beside_[2], above_, below_, edges_, edges_beside_[2], edges_up_, edges_down_;
};

}  // namespace nec::cuda
