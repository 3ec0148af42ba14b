// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The gradients of an image on the march: from the ring and from what a thread keeps of the planes
// before.
#pragma once

#include "../math/stencil.h"
#include "cells.cuh"

namespace nec::cuda {

// Central and forward differences: a thread keeps its own strips of three planes, and finds those
// around it in the ring. `Phases` 3: each step has code of its own for the registers that a plane
// is in; 1: the planes are moved.
template <typename T, int Dim, class S, class Cells, int R, int Phases>
class AxisImages {
  static constexpr int N = Strip<T>::size;

 public:
  static constexpr double kUnit = 1;             // of the gradients
  static constexpr T kExtremeScale = T(1) / 16;  // of images whose differences may overflow

  // A step begins: the plane after the one at hand is in slot `next`. Before the first step the two
  // phases before it bring their planes likewise.
  template <int Phase>
  NEC_DEVICE void advance(const Cells& at, int next) {
    if constexpr (Phases == 1) {
      planes_[0] = planes_[1];
      planes_[1] = planes_[2];
    }
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      NEC_UNROLL
      for (int r = 0; r < R; ++r) planes_[(Phase + 2) % 3].v[m][r] = *at.image(next, m, r);
    }
  }

  // The gradient of image m in row r of the plane at hand, which is in that slot. `Again`: of
  // images times kExtremeScale.
  template <int Phase, bool Again>
  NEC_DEVICE void differences(const Cells& at, int slot, int m, int r, Vec<Dim, T> (&d)[N]) const {
    const Strip<T>&before = planes_[Phase].v[m][r], &next = planes_[(Phase + 2) % 3].v[m][r];
    const Strip<T>(&own)[R] = planes_[(Phase + 1) % 3].v[m];
    Strip<T> rows[3] = {own[r], own[r], own[r]};  // [dy + 1]
    if constexpr (Dim == 3) {
      if (S::lower < 0) rows[0] = r > 0 ? own[0] : *at.image(slot, m, -1);
      rows[2] = r < R - 1 ? own[R - 1] : *at.image(slot, m, R);
    }
    const T left = at.beside(0, at.image(slot, m, r)), right = at.beside(1, at.image(slot, m, r));
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      d[i] = S::template gradient<Dim, T>([&](int dz, int dy, int dx) {
        const int x = i + dx;
        const T voxel = dz != 0  ? (dz < 0 ? before : next).v[i]
                        : x < 0  ? left
                        : x >= N ? right
                                 : rows[dy + 1].v[x];
        return Again ? kExtremeScale * voxel : voxel;
      });
    }
  }

 private:
  struct Plane {
    Strip<T> v[2][R];  // [image][row]
  };
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

  template <int Phase>
  NEC_DEVICE void advance(const Cells& at, int next) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      const Rows w(at, next, m);
      NEC_UNROLL
      for (int i = 0; i < N; ++i) {
        const auto plane = S::template plane_gradient<Dim, T>(
            T(kUnit), [&](int dy, int dx) { return w.v[dy + 1][i + 1 + dx]; });
        constexpr T outer = T(S::in_plane_taps[0]), inner = T(S::in_plane_taps[1]);
        Voxel& kept = kept_[m][i];
        kept.d.v[0] = plane.v[0] - kept.before;
        kept.before = kept.here;
        kept.here = plane.v[0];
        NEC_UNROLL
        for (int k = 1; k < Dim; ++k) {
          kept.d.v[k] = kept.known[k] + outer * plane.v[k];
          kept.known[k] = kept.begun[k] + inner * plane.v[k];
          kept.begun[k] = outer * plane.v[k];
        }
      }
    }
  }

  template <int Phase, bool Again>
  NEC_DEVICE void differences(const Cells&, int, int m, int, Vec<Dim, T> (&d)[N]) const {
    NEC_UNROLL
    for (int i = 0; i < N; ++i) d[i] = kept_[m][i].d;
  }

 private:
  // The strips around the thread's own in a plane of image m, and the voxels beside them.
  struct Rows {
    T v[3][N + 2];  // [dy + 1][x + 1]

    NEC_DEVICE Rows(const Cells& at, int slot, int m) {
      constexpr int kRows = Dim == 3 ? 1 : 0;
      NEC_UNROLL
      for (int dy = -kRows; dy <= kRows; ++dy) {
        const Strip<T>* const there = at.image(slot, m, dy);
        const Strip<T> strip = *there;  // one access
        v[dy + 1][0] = at.beside(0, there);
        v[dy + 1][N + 1] = at.beside(1, there);
        NEC_UNROLL
        for (int i = 0; i < N; ++i) v[dy + 1][i + 1] = strip.v[i];
      }
    }
  };

  // Keeps the last two planes of the component that is differenced along z, and of those that are
  // smoothed, [axis], as much as is known for the plane after the one at hand and for the next.
  struct Voxel {
    Vec<Dim, T> d;  // of the plane at hand
    T before, here, known[Dim], begun[Dim];
  };
  Voxel kept_[2][N];
};

}  // namespace nec::cuda
