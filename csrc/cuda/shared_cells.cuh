// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What the threads of a block show each other: a cell of shared memory per thread.
//
// A cell holds the thread's strips of some planes, and beside them the first and the last voxel of
// each once more, in a cell of their own: a thread that looks along x needs one voxel of each
// neighbour. All planes of a cell lie side by side, so that what a thread reads is at constant
// distances from a few addresses that never change. The distance from one cell to the next is odd,
// in strips or in voxels, so that the threads of a warp meet in no memory bank.
#pragma once

#include "strips.cuh"

namespace nec::cuda {

// Where a thread finds those around it: how many threads further, 0 where it stands in for one
// that is beyond the border of the image, or of the block, where nothing that counts is computed.
struct Neighbours {
  int up, down, left, right;
};

template <typename T, int Planes, int EdgePlanes>
class SharedCells {
 public:
  static constexpr int kStrip = Strip<T>::size;
  static constexpr int kPitch = Planes | 1, kEdgePitch = 2 * EdgePlanes | 1;

  static constexpr int64_t bytes(int64_t threads) {
    return threads * int64_t(kPitch * sizeof(Strip<T>) + kEdgePitch * sizeof(T));
  }

  // A multiple of a warp, and as many as fit.
  static constexpr int64_t most_threads(int64_t shared) { return shared / bytes(1) / 32 * 32; }

  NEC_DEVICE SharedCells(void* shared, int threads, const Neighbours& to) {
    Strip<T>* const strips = static_cast<Strip<T>*>(shared) + int(threadIdx.x) * kPitch;
    T* const edges = (static_cast<Strip<T>*>(shared) + threads * kPitch)->v +
                     int(threadIdx.x) * kEdgePitch;
    const int rows[3] = {to.up, 0, to.down};
    NEC_UNROLL
    for (int k = 0; k < 3; ++k) {
      strips_[k] = strips + rows[k] * kPitch;
      // Beyond the border the last voxel goes on: that is the thread's own.
      T* const row = edges + rows[k] * kEdgePitch;
      left_[k] = row + (to.left == 0 ? 0 : to.left * kEdgePitch + 1);
      right_[k] = row + (to.right == 0 ? 1 : to.right * kEdgePitch);
    }
    edges_ = edges;
  }

  NEC_DEVICE void put_strip(int plane, const Strip<T>& strip) const { strips_[1][plane] = strip; }
  NEC_DEVICE void put_edges(int plane, const Strip<T>& strip) const {
    edges_[2 * plane] = strip.v[0];
    edges_[2 * plane + 1] = strip.v[kStrip - 1];
  }

  // A strip and the voxels around it: [0] is the one before.
  struct Window {
    T v[kStrip + 2];
  };
  NEC_DEVICE void read_strip(int plane, int dy, Window& w) const {
    const Strip<T> strip = strips_[dy + 1][plane];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) w.v[i + 1] = strip.v[i];
  }
  NEC_DEVICE void read_sides(int plane, int dy, Window& w) const {
    w.v[0] = left_[dy + 1][2 * plane];
    w.v[kStrip + 1] = right_[dy + 1][2 * plane];
  }

 private:
  Strip<T>* strips_[3];  // of the row before, of this one, and of the next
  T *left_[3], *right_[3], *edges_;
};

}  // namespace nec::cuda
