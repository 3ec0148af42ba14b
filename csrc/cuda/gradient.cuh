// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The gradients on the march: the adjoint of the cotangents, plane by plane (math/stencil.h).
//
// A plane of cotangents contributes to the gradient of three planes. So two planes of gradient are
// under way: `running` is that of the plane before, as far as it is known, and `carried` what the
// plane before has added to the one at hand. When the cotangents of plane z are known, the gradient
// of plane z - 1 is complete and written:
//
//   gradient of z - 1  =  running + taps[2] z
//   running            =  carried + taps[1] z
//   carried            =            taps[0] z
//
// On axes, what a thread's own cotangents contribute is added at once, and nothing of them is kept.
// The threads around add theirs in the next step, when they lie in shared memory. Sobel's all lie
// there then, and a gradient is complete one step later.
#pragma once

#include "../math/stencil.h"
#include "cells.cuh"

namespace nec::cuda {

// `Optional`: not all G gradients are asked for.
template <typename T, int Dim, class S, class Cells, int G, int R, bool Optional>
class RunningGradients {
  static constexpr int N = Strip<T>::size;

 public:
  // Steps by which a gradient is late.
  static constexpr int kDelay = S::on_axes ? 0 : 1;

  // `unit`: of the differences.
  NEC_DEVICE void start(const Cells& at, double unit) {
    constexpr auto taps = AdjointTaps<T>::template of<S>();
    scale_ = T(unit * at.a.gradient_scale * (at.a.factor ? *at.a.factor : 1.0));
    beyond_x_[0] = kept<S::on_axes>(taps.beyond(0, at.x == 0));
    beyond_x_[1] = kept<S::on_axes>(taps.beyond(1, at.x + N >= at.a.width));
    beyond_y_[0] = kept<S::on_axes>(taps.beyond(0, at.y == 0));
    beyond_y_[1] = kept<S::on_axes>(taps.beyond(1, at.y + R >= at.a.height));
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      rows_[g] = at.row_of(at.a.gradient[g], at.z - 1 - kDelay, 0);
      if (!at.a.staged) rows_[g] += at.x * at.a.gradient[g].stride[kAxes - 1];
      NEC_UNROLL
      for (int r = 0; r < R; ++r) running_[g][r] = carried_[g][r] = Strip<T>{};
    }
  }

  // Adds what the cotangents of plane z, all in shared memory by now, contribute to other threads.
  NEC_DEVICE void add_plane(const Cells& at, int z) {
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      if constexpr (S::on_axes) {
        add_neighbours(at, z, g);
      } else {
        Strip<T> in_plane{}, along_z{};
        if (z >= at.z && z < at.a.depth) plane_adjoint(at, z, g, in_plane, along_z);
        complete(at, z, g, 0, in_plane, along_z);
      }
    }
  }

  // Puts the cotangents of gradient g in row r of plane z, by their components, into shared memory,
  // where the threads around find them after the next barrier. On axes that completes the gradient
  // of the plane before.
  NEC_DEVICE void put(const Cells& at, int z, int g, int r, const Strip<T> (&parts)[Dim]) {
    NEC_UNROLL
    for (int axis = S::on_axes ? 1 : 0; axis < Dim; ++axis) at.put(z, g, axis, r, parts[axis]);
    if constexpr (S::on_axes) {
      Strip<T> own;  // of the adjoint along x
      NEC_UNROLL
      for (int i = 0; i < N; ++i) {
        const Strip<T>& x = parts[Dim - 1];
        const int plus = i - S::upper, minus = i - S::lower;
        own.v[i] = plus < 0 ? -x.v[minus] : x.v[plus < 0 ? 0 : plus];
        if (plus >= 0 && minus < N) own.v[i] -= x.v[minus < N ? minus : 0];
      }
      if (Dim == 3 && S::lower == 0) own -= parts[1];
      complete(at, z, g, r, own, parts[0]);
      if (r + 1 < R) carried_[g][R - 1] += parts[1];
      if (R > 1 && S::lower < 0) {
        // The image may end with the first row of a thread.
        if (r > 0 && at.y + r < at.a.height) running_[g][0] -= parts[1];
        if (r == 0 && at.y == at.a.height - 1) running_[g][0] -= T(S::continuation[1]) * parts[1];
      }
    }
  }

  // A step without cotangents: beyond the last plane there are none.
  NEC_DEVICE void skip(const Cells& at, int z) {
    NEC_UNROLL
    for (int g = 0; S::on_axes && g < G; ++g) {
      NEC_UNROLL
      for (int r = 0; r < R; ++r) complete(at, z, g, r, Strip<T>{}, Strip<T>{});
    }
  }

  // Writes what the step before z has staged, along the rows.
  NEC_DEVICE void write_staged(const Cells& at, int z) const {
    if (!at.a.staged) return;
    const int plane = z - 2 - kDelay;
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      const Array& array = at.a.gradient[g];
      NEC_UNROLL
      for (int r = 0; r < R; ++r) {
        if (!array || !at.writes(plane, r)) continue;
        char* const row = rows_[g] - array.stride[2] + r * array.stride[3];
        NEC_ROLLED
        for (int e = at.column; e < N * at.a.tiling.strips; e += at.a.tiling.strips) {
          const int x = at.x - at.column * N + e;
          if (x < at.low() || x >= at.high()) continue;
          const T voxel = *at.element(at.staged(plane, g, r), e);
          with_image_type<T>(array.dtype, [&](auto element) {
            using Element = decltype(element);
            store_as(voxel, *reinterpret_cast<Element*>(row + x * array.stride[kAxes - 1]));
          });
        }
      }
    }
  }

 private:
  // Adds what the threads around contribute to the gradient of their plane.
  NEC_DEVICE void add_neighbours(const Cells& at, int z, int g) {
    constexpr bool both = S::lower < 0;
    NEC_UNROLL
    for (int r = 0; r < R; ++r) {
      running_[g][r].v[0] += beyond_x_[0] * at.cotangent_beside(0, z, g, Dim - 1, r);
      if (both) running_[g][r].v[N - 1] -= beyond_x_[1] * at.cotangent_beside(1, z, g, Dim - 1, r);
    }
    if constexpr (Dim == 3) {
      running_[g][0] += beyond_y_[0] * at.cotangent_strip(z, g, 1, -1);
      if (both) running_[g][R - 1] -= beyond_y_[1] * at.cotangent_strip(z, g, 1, R);
    }
  }

  // The adjoint of a plane, from the 3 x 3 voxels around each.
  NEC_DEVICE void plane_adjoint(const Cells& at, int z, int g, Strip<T>& in_plane,
                                Strip<T>& along_z) const {
    constexpr int kRows = Dim == 3 ? 1 : 0;
    T w[Dim][3][N + 2];  // [axis][dy + 1][x + 1]
    NEC_UNROLL
    for (int axis = 0; axis < Dim; ++axis) {
      const bool along_x = axis == Dim - 1, along_y = Dim == 3 && axis == 1;
      NEC_UNROLL
      for (int dy = -kRows; dy <= kRows; ++dy) {
        T(&row)[N + 2] = w[axis][dy + 1];
        const T y = along_y && dy != 0 ? beyond_y_[dy < 0 ? 0 : 1] : T(1);
        const Strip<T> strip = y * at.cotangent_strip(z, g, axis, dy);
        NEC_UNROLL
        for (int i = 0; i < N; ++i) row[i + 1] = strip.v[i];
        row[0] = (along_x ? beyond_x_[0] : y) * at.cotangent_beside(0, z, g, axis, dy);
        row[N + 1] = (along_x ? beyond_x_[1] : y) * at.cotangent_beside(1, z, g, axis, dy);
      }
    }
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      const PlaneAdjoint<T> p = S::template plane_adjoint<Dim, T>(
          [&](int axis, int dy, int dx) { return w[axis][dy + 1][i + 1 + dx]; });
      in_plane.v[i] = p.in_plane;
      along_z.v[i] = p.along_z;
    }
  }

  // Adds what plane z contributes, which completes the gradient of the plane before it.
  NEC_DEVICE void complete(const Cells& at, int z, int g, int r, const Strip<T>& in_plane,
                           const Strip<T>& along_z) {
    constexpr auto taps = AdjointTaps<T>::template of<S>();
    Strip<T>&running = running_[g][r], &carried = carried_[g][r];
    Strip<T> gradient = running;
    if (S::along_z_taps[2] != 0) gradient += taps.along_z[2] * along_z;
    running = carried;
    if (S::along_z_taps[1] != 0) running += taps.along_z[1] * along_z;
    carried = taps.along_z[0] * along_z;
    if (!S::on_axes) gradient += taps.in_plane[2] * in_plane;
    running += taps.in_plane[1] * in_plane;
    if (!S::on_axes) carried += taps.in_plane[0] * in_plane;
    const bool first = z == 0, last = z == at.a.depth - 1;
    if (first || last) {
      const PlaneAdjoint<T> more = taps.standing_in(first, last);
      running += more.along_z * along_z;
      if (!S::on_axes) running += more.in_plane * in_plane;
    }
    store(at, z - 1, g, r, scale_ * gradient);
  }

  // Writes a strip of gradient g in plane z. After the last row it goes on to the next plane.
  NEC_DEVICE void store(const Cells& at, int z, int g, int r, const Strip<T>& gradient) {
    const Array& array = at.a.gradient[g];
    if (at.a.staged) {
      *at.staged(z, g, r) = gradient;
    } else if (at.writes(z, r) && (!Optional || array)) {
      char* const to = rows_[g] + r * array.stride[3];
      with_image_type<T>(array.dtype,
                         [&](auto element) { store_strip_as<decltype(element)>(gradient, to); });
    }
    if (r == R - 1) rows_[g] += array.stride[2];
  }

  // Arrays of one element too many, since there are none of no elements.
  char* rows_[G + 1];  // of each gradient, in the plane that is complete next
  T scale_;            // of the gradient
  // Beyond a border of the image, before and after, the thread's own cotangents go on times these
  // factors. 1 where there is no border.
  T beyond_x_[2], beyond_y_[2];
  Strip<T> running_[G + 1][R], carried_[G + 1][R];
};

}  // namespace nec::cuda
