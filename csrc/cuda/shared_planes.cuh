// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Planes of a block in shared memory.
//
// A plane of strips has one strip per thread. Beside it lie the first and the last voxel of every
// strip once more, in arrays of their own: a thread that looks along x needs one voxel of each
// neighbour, and words that are 16 bytes apart would come at a quarter of the speed, four threads
// of a warp to each memory bank.
#pragma once

#include "strips.cuh"
#include "tiling.h"

namespace nec::cuda {

template <typename T, int StripPlanes, int EdgePlanes>
class SharedPlanes {
 public:
  static constexpr int kStrip = Strip<T>::size;

  // Around each plane there is room for one thread more. A thread at the end of a row finds the row
  // before or after beyond it, of the same image, and what it computes from that is not used; but
  // it decides how the whole strip is computed, so at the end of a plane it must not be what an
  // earlier block has left, nor another plane, which is being written: edges begin as 0.
  static constexpr int64_t bytes(int64_t threads) {
    return (StripPlanes * (threads + 1) + 1) * int64_t(sizeof(Strip<T>)) +
           (2 * EdgePlanes * (threads + 1) + 1) * int64_t(sizeof(T));
  }

  // A multiple of a warp, and as many as fit.
  static constexpr int64_t most_threads(int64_t shared) {
    constexpr int64_t each = bytes(1) - bytes(0);
    return (shared - bytes(0)) / each / 32 * 32;
  }

  NEC_DEVICE SharedPlanes(void* shared, const Tiling& tiling)
      : tiling_(tiling), strips_(static_cast<Strip<T>*>(shared) + 1 + threadIdx.x) {
    const int before = StripPlanes * tiling.pitch + 1;
    T* const edges = static_cast<Strip<T>*>(shared)[before].v;
    edges_ = edges + 1 + threadIdx.x;
    NEC_ROLLED
    for (int k = int(threadIdx.x); k <= 2 * EdgePlanes * tiling.pitch; k += tiling.pitch - 1)
      edges[k] = 0;
    __syncthreads();
  }

  // Of the thread, or of the one `dy` rows further.
  NEC_DEVICE Strip<T>& strip(unsigned plane, int dy = 0) const {
    return strips_[int(plane) * tiling_.pitch + dy * tiling_.strips];
  }
  NEC_DEVICE T& first(unsigned plane, int dy = 0, int dx = 0) const {
    return edges_[int(2 * plane) * tiling_.pitch + dy * tiling_.strips + dx];
  }
  NEC_DEVICE T& last(unsigned plane, int dy = 0, int dx = 0) const {
    return edges_[int(2 * plane + 1) * tiling_.pitch + dy * tiling_.strips + dx];
  }

  // A strip and the voxels around it: [0] is the one before.
  struct Window {
    T v[kStrip + 2];
  };
  NEC_DEVICE void read_strip(unsigned plane, int dy, Window& w) const {
    const Strip<T> own = strip(plane, dy);
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) w.v[i + 1] = own.v[i];
  }
  NEC_DEVICE void read_sides(unsigned plane, int dy, Window& w) const {
    w.v[0] = last(plane, dy, -1);
    w.v[kStrip + 1] = first(plane, dy, 1);
  }

 private:
  const Tiling& tiling_;
  Strip<T>* strips_;
  T* edges_;
};

}  // namespace nec::cuda
