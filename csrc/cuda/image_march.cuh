// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The images on the march: a thread's strips of the planes around it, from memory through registers
// into shared memory.
#pragma once

#include "../math/stencil.h"
#include "shared_cells.cuh"
#include "sweep_place.cuh"

namespace nec::cuda {

// `Ahead`: how many planes beyond the one at hand have to be in shared memory.
template <typename T, class Place, class Cells, int Ahead, Layout Arrays>
class ImageMarch {
 public:
  static constexpr int kStrip = Strip<T>::size;
  // Planes of an image in shared memory: those that are looked at, and one that is being put there.
  static constexpr int kSlots = 3 + Ahead;

  static NEC_DEVICE int plane(int slot, int image) { return slot * 2 + image; }
  // The slot of the plane `dz` planes further.
  static NEC_DEVICE int slot_at(int slot, int dz) {
    const int further = slot + dz;
    return further < 0 ? further + kSlots : further >= kSlots ? further - kSlots : further;
  }

  // Planes up to `Ahead` after the first, which is in slot 0, are put into shared memory, and the
  // one after them is requested.
  NEC_DEVICE void start(const SweepArguments<T>& a, const Place& at, const Cells& cells) {
    NEC_ROLLED
    for (int k = -1; k <= Ahead; ++k) {
      seek(a, at, at.z + k);
      fetch(a, at);
      arrive(a);
      publish(cells, slot_at(0, k));
    }
    seek(a, at, at.z + 1 + Ahead);
    fetch(a, at);
    // Exact for float32 and rows that begin with a line; otherwise a few prefetches too many or too
    // few.
    constexpr int kStrips = kLine / int(sizeof(Strip<T>));
    leads_line_ = at.to.left == 0 || at.x / kStrip % kStrips == 0;
  }

  // Waits for the plane that has been requested.
  NEC_DEVICE void arrive(const SweepArguments<T>& a) {
    if constexpr (Arrays != Layout::plain) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) next_[m] = arriving_[m].arrive(a.image[m].dtype);
    }
  }

  // Puts the plane that has arrived into shared memory and requests the next one. The plane at hand
  // is z, and in that slot.
  NEC_DEVICE void advance(const SweepArguments<T>& a, const Place& at, const Cells& cells, int z,
                          int slot) {
    publish(cells, slot_at(slot, 1 + Ahead));
    // Keeps the compiler from requesting the next plane first: the wait for this one would be for
    // both, since a thread counts what is on its way in a handful of counters.
    __syncwarp();
    if (z + 2 + Ahead <= at.last_plane) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) rows_[m] += a.image[m].stride[2];
    }
    fetch(a, at);
    // One step does not hide what memory takes: by then the plane is to be in the second-level
    // cache. (Sobel has arithmetic to wait for instead, and no register left.)
    if (Ahead == 0 && leads_line_ && z + 3 <= at.last_plane) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) {
        const char* next_row = rows_[m] + a.image[m].stride[2];
        if constexpr (Arrays != Layout::plain)
          next_row += smaller(at.x, a.width - 1) * a.image[m].stride[kAxes - 1];
        prefetch(next_row);
      }
    }
  }

  // The gradient of an image in the plane at hand. `Again`: of images that are smaller by
  // `kSmaller`, and without registers, since the planes have moved on.
  static constexpr T kSmaller = T(1) / 16;
  template <class S, int Dim, bool Again>
  NEC_DEVICE void differences(const SweepArguments<T>& a, const Cells& cells, int m, int slot,
                              Vec<Dim, T> (&d)[kStrip]) const {
    constexpr bool kRegisters = S::on_axes && !Again;
    constexpr int kPlanes = kRegisters ? 0 : 1, kRows = Dim == 3 ? 1 : 0;
    typename Cells::Window w[3][3] = {};
    NEC_UNROLL
    for (int dz = -kPlanes; dz <= kPlanes; ++dz) {
      const int at = plane(slot_at(slot, dz), m);
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
        return Again ? kSmaller * voxel : voxel;
      });
      if constexpr (Arrays != Layout::plain) {
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
      if constexpr (Arrays == Layout::plain)
        rows_[m] += smaller(at.x, a.width - kStrip) * int64_t(sizeof(T));
    }
  }

  NEC_DEVICE void fetch(const SweepArguments<T>& a, const Place& at) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      if constexpr (Arrays == Layout::plain) {
        next_[m] = *reinterpret_cast<const Strip<T>*>(rows_[m]);
      } else {
        arriving_[m].request(a.image[m], rows_[m], at.x, a.width);
      }
    }
  }

  NEC_DEVICE void publish(const Cells& cells, int slot) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      before_[m] = here_[m];
      here_[m] = next_[m];
      cells.put_strip(plane(slot, m), here_[m]);
      cells.put_edges(plane(slot, m), here_[m]);
    }
  }

  // Planes of both images: the last two that are in shared memory, and the one that is to be next.
  Strip<T> before_[2], here_[2] = {}, next_[2];
  const char* rows_[2];  // of the plane that has been requested
  bool leads_line_;      // is the first to read a line of memory
  Arriving<T, true> arriving_[2];
};

}  // namespace nec::cuda
