// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The gradients of an image on the march: from the ring and from what a thread keeps of the planes
// before.
#pragma once

#include "../math/stencil.h"
#include "ring.cuh"

namespace nec::cuda {

// Central and forward differences: a thread keeps its own strips of three planes, and finds those
// around it in the ring. `Phases` 3: each step has code of its own for the register that a plane is
// in; 1: the planes are moved.
template <typename T, int Dim, class S, class Cells, int R, int Phases>
class AxisImages {
  static constexpr int N = Strip<T>::size;

 public:
  static constexpr double kUnit = 1;             // of the gradients
  static constexpr T kExtremeScale = T(1) / 16;  // of images whose differences may overflow

  // The planes before and at the first step are in these slots.
  NEC_DEVICE void start(const Cells& at, int before, int here) {
    read(at, before, planes_[0]);
    read(at, here, planes_[1]);
  }
  // A step begins: the plane after the one at hand is in that slot.
  template <int Phase>
  NEC_DEVICE void advance(const Cells& at, int next) {
    read(at, next, planes_[(Phase + 2) % 3]);
  }
  NEC_DEVICE void end_step() {
    if constexpr (Phases == 1) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) {
        NEC_UNROLL
        for (int r = 0; r < R; ++r) {
          planes_[0].v[m][r] = planes_[1].v[m][r];
          planes_[1].v[m][r] = planes_[2].v[m][r];
        }
      }
    }
  }

  // The gradient of image m in row r of the plane at hand, which is in that slot. `Again`: of
  // images times kExtremeScale.
  template <int Phase, bool Again>
  NEC_DEVICE void differences(const Cells& at, int slot, int m, int r,
                              Vec<Dim, T> (&d)[N]) const {
    const Strip<T>&before = planes_[Phase].v[m][r], &here = planes_[(Phase + 1) % 3].v[m][r],
          &next = planes_[(Phase + 2) % 3].v[m][r];
    Strip<T> above = here, below = here;
    if constexpr (Dim == 3) {
      const auto row = [&](int y) {
        const int own = y < 0 ? 0 : y >= R ? R - 1 : y;
        return own == y ? planes_[(Phase + 1) % 3].v[m][own] : *at.image(slot, m, y);
      };
      above = row(r + S::lower);
      below = row(r + S::upper);
    }
    const T left = at.left(at.image(slot, m, r)),
            right = at.right(at.image(slot, m, r));
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      d[i] = S::template gradient<Dim, T>([&](int dz, int dy, int dx) {
        const int x = i + dx;
        const T voxel = dz != 0   ? (dz < 0 ? before.v[i] : next.v[i])
                        : dy != 0 ? (dy < 0 ? above.v[i] : below.v[i])
                        : x < 0   ? left
                        : x >= N  ? right
                                  : here.v[x < 0    ? 0
                                           : x >= N ? N - 1
                                                    : x];
        return Again ? kExtremeScale * voxel : voxel;
      });
    }
  }

 private:
  struct Plane {
    Strip<T> v[2][R];  // [image][row]
  };
  static NEC_DEVICE void read(const Cells& at, int slot, Plane& plane) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      NEC_UNROLL
      for (int r = 0; r < R; ++r) plane.v[m][r] = *at.image(slot, m, r);
    }
  }

  Plane planes_[3];  // before, at hand and after, in turn
};

// Sobel: a plane is smoothed and differenced in itself as soon as it is there, and never looked at
// again. What it contributes to the gradients of three planes is kept in sums.
template <typename T, int Dim, class S, class Cells>
class SobelImages {
  static constexpr int N = Strip<T>::size;

 public:
  // A smaller unit for the gradients, so that no sum of voxels overflows.
  static constexpr double kUnit = 1.0 / 16;
  static constexpr T kExtremeScale = 1;

  NEC_DEVICE void start(const Cells& at, int before, int here) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      Strip<T> first[Dim], second[Dim];
      plane_gradient(at, before, m, first);
      plane_gradient(at, here, m, second);
      before_[m] = first[0];
      here_[m] = second[0];
      NEC_UNROLL
      for (int k = 1; k < Dim; ++k) {
        NEC_UNROLL
        for (int i = 0; i < N; ++i) {
          known_[m][k - 1].v[i] = kOuter * first[k].v[i] + kInner * second[k].v[i];
          begun_[m][k - 1].v[i] = kOuter * second[k].v[i];
        }
      }
    }
  }
  template <int Phase>
  NEC_DEVICE void advance(const Cells& at, int next) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      Strip<T> plane[Dim];
      plane_gradient(at, next, m, plane);
      NEC_UNROLL
      for (int i = 0; i < N; ++i) {
        d_[m][i].v[0] = plane[0].v[i] - before_[m].v[i];
        NEC_UNROLL
        for (int k = 1; k < Dim; ++k) {
          T &known = known_[m][k - 1].v[i], &begun = begun_[m][k - 1].v[i];
          const T outer = kOuter * plane[k].v[i];
          d_[m][i].v[k] = known + outer;
          known = begun + kInner * plane[k].v[i];
          begun = outer;
        }
      }
      before_[m] = here_[m];
      here_[m] = plane[0];
    }
  }
  NEC_DEVICE void end_step() {}

  template <int Phase, bool Again>
  NEC_DEVICE void differences(const Cells&, int, int m, int, Vec<Dim, T> (&d)[N]) const {
    NEC_UNROLL
    for (int i = 0; i < N; ++i) d[i] = d_[m][i];
  }

 private:
  static constexpr T kOuter = T(S::in_plane_taps[0]), kInner = T(S::in_plane_taps[1]);

  // [0] is to be differenced along z, the others are to be smoothed.
  static NEC_DEVICE void plane_gradient(const Cells& at, int slot, int m,
                                        Strip<T> (&plane)[Dim]) {
    constexpr int kRows = Dim == 3 ? 1 : 0;
    T w[3][N + 2];  // [dy + 1]
    NEC_UNROLL
    for (int dy = -kRows; dy <= kRows; ++dy) {
      const Strip<T>* const strip = at.image(slot, m, dy);
      w[dy + 1][0] = at.left(strip);
      w[dy + 1][N + 1] = at.right(strip);
      NEC_UNROLL
      for (int i = 0; i < N; ++i) w[dy + 1][i + 1] = strip->v[i];
    }
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      const auto g = S::template plane_gradient<Dim, T>(
          T(kUnit), [&](int dy, int dx) { return w[dy + 1][i + 1 + dx]; });
      NEC_UNROLL
      for (int k = 0; k < Dim; ++k) plane[k].v[i] = g.v[k];
    }
  }

  Vec<Dim, T> d_[2][N];                             // of the plane at hand
  Strip<T> before_[2], here_[2];                    // [0] of the last two planes
  Strip<T> known_[2][Dim - 1], begun_[2][Dim - 1];  // the others, smoothed as far as known
};

}  // namespace nec::cuda
