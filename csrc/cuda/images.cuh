// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The images on the march: a thread's strips of the planes around it, from memory through registers
// into shared memory.
//
//   memory                 registers                        shared memory
//   z + 3   prefetched
//   z + 2   requested ──▶  next_
//                          here_    plane z + 1  ──put──▶   slot of z + 1
//                          before_  plane z                 slots of z and z - 1
//
// That is the end of step z for an operator that looks along the axes. Any other is a plane ahead.
#pragma once

#include "../math/stencil.h"
#include "place.cuh"
#include "shared_cells.cuh"

namespace nec::cuda {

// `S`: the Stencil of the operator.
template <typename T, int Dim, class S, Gradients Wanted, Variant V>
class Images {
  using Planes = CellPlanes<T, Dim, S, Wanted>;
  using Cells = typename Planes::Cells;
  using Place = cuda::Place<Dim, Wanted == Gradients::none ? 0 : 1>;
  static constexpr int kStrip = Strip<T>::size, kAhead = Planes::kAhead;

 public:
  // Scales the images that are read again where a square has overflowed.
  static constexpr T kExtremeScale = T(1) / 16;

  // Planes up to `kAhead` after the first, which is in slot 0, are put into shared memory, and the
  // one after them is requested.
  NEC_DEVICE void start(const SweepArguments<T>& a, const Place& at, const Cells& cells) {
    NEC_ROLLED
    for (int k = -1; k <= kAhead; ++k) {
      seek(a, at, at.z + k);
      fetch(a, at);
      arrive(a);
      publish(cells, Planes::slot_at(0, k));
    }
    seek(a, at, at.z + 1 + kAhead);
    fetch(a, at);
    // Exact for float32 and rows that begin with a line; otherwise a few prefetches too many or too
    // few.
    constexpr int kStrips = kLine / int(sizeof(Strip<T>));
    leads_line_ = at.to.left == 0 || at.x / kStrip % kStrips == 0;
  }

  // Waits for the plane that has been requested.
  NEC_DEVICE void arrive(const SweepArguments<T>& a) {
    if constexpr (V != Variant::plain) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) next_[m] = pending_[m].arrive(a.image[m].dtype);
    }
  }

  // Puts the plane that has arrived into shared memory and requests the next one. The plane at hand
  // is z, and in that slot.
  NEC_DEVICE void advance(const SweepArguments<T>& a, const Place& at, const Cells& cells, int z,
                          int slot) {
    publish(cells, Planes::slot_at(slot, 1 + kAhead));
    // Keeps the compiler from requesting the next plane first: the wait for this one would be for
    // both, since a thread counts what is on its way in a handful of counters.
    __syncwarp();
    if (z + 2 + kAhead <= at.last_plane) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) rows_[m] += a.image[m].stride[2];
    }
    fetch(a, at);
    // One step does not hide what memory takes: by then the plane is to be in the second-level
    // cache. (Sobel has arithmetic to wait for instead, and no register left.)
    if (kAhead == 0 && leads_line_ && z + 3 <= at.last_plane) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) {
        const char* next_row = rows_[m] + a.image[m].stride[2];
        if constexpr (V != Variant::plain)
          next_row += minimum(at.x, a.width - 1) * a.image[m].stride[kAxes - 1];
        prefetch(next_row);
      }
    }
  }

  // The gradient of an image in the plane at hand. `Again`: of images times `kExtremeScale`,
  // and without registers, since the planes have moved on.
  template <bool Again>
  NEC_DEVICE void differences(const SweepArguments<T>& a, const Cells& cells, int m, int slot,
                              Vec<Dim, T> (&d)[kStrip]) const {
    constexpr bool kRegisters = S::on_axes && !Again;
    constexpr int kPlanes = kRegisters ? 0 : 1, kRows = Dim == 3 ? 1 : 0;
    typename Cells::PaddedStrip w[3][3] = {};  // [dz + 1][dy + 1]
    NEC_UNROLL
    for (int dz = -kPlanes; dz <= kPlanes; ++dz) {
      const int at = Planes::image(Planes::slot_at(slot, dz), m);
      NEC_UNROLL
      for (int dy = -kRows; dy <= kRows; ++dy) {
        // Nothing beside an axis is needed, and of the plane ahead it may just be being written.
        if (S::on_axes && dz != 0 && dy != 0) continue;
        if (!kRegisters || dy != 0) cells.read_strip(at, dy, w[dz + 1][dy + 1]);
        if (!S::on_axes || (dy == 0 && dz == 0)) cells.read_sides(at, dy, w[dz + 1][dy + 1]);
      }
    }
    if constexpr (kRegisters) {
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        w[0][1].v[i + 1] = before_[m].v[i];
        w[1][1].v[i + 1] = here_[m].v[i];
        w[2][1].v[i + 1] = next_[m].v[i];
      }
    }
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      d[i] = S::template gradient<Dim, T>([&](int dz, int dy, int dx) {
        const T voxel = w[dz + 1][dy + 1].v[i + 1 + dx];
        return Again ? kExtremeScale * voxel : voxel;
      });
      if constexpr (V != Variant::plain) {
        NEC_UNROLL
        for (int k = 0; k < Dim - 1; ++k) d[i].v[k] *= a.axis_scale[k];
      }
    }
  }

 private:
  // Goes to plane z, the border replicated.
  NEC_DEVICE void seek(const SweepArguments<T>& a, const Place& at, int z) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      rows_[m] = at.row_inside(a, a.image[m], z);
      if constexpr (V == Variant::plain)
        rows_[m] += minimum(at.x, a.width - kStrip) * int64_t(sizeof(T));
    }
  }

  // Requests the plane that the rows point at. A plain strip needs no conversion: it goes straight
  // to where it stays, and the first use of it waits.
  NEC_DEVICE void fetch(const SweepArguments<T>& a, const Place& at) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      if constexpr (V == Variant::plain) {
        next_[m] = *reinterpret_cast<const Strip<T>*>(rows_[m]);
      } else {
        pending_[m].request(a.image[m], rows_[m], at.x, a.width);
      }
    }
  }

  // The plane that has arrived becomes the one at hand, and visible to the neighbours after the
  // next barrier.
  NEC_DEVICE void publish(const Cells& cells, int slot) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      before_[m] = here_[m];
      here_[m] = next_[m];
      cells.put_strip(Planes::image(slot, m), here_[m]);
      cells.put_edges(Planes::image(slot, m), here_[m]);
    }
  }

  // [image]: the last two planes that are in shared memory, and the one that is to be next.
  Strip<T> before_[2], here_[2] = {}, next_[2];
  const char* rows_[2];  // x = 0 in the plane that has been requested; plain: the strip
  bool leads_line_;      // is the first to read a line of memory
  PendingStrip<T, true> pending_[2];  // what becomes next_, unless the variant is plain
};

}  // namespace nec::cuda
