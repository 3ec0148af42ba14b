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
#pragma once

#include "../math/stencil.h"
#include "place.cuh"

namespace nec::cuda {

template <typename T, int Dim, class S, Gradients Wanted, Variant V>
class RunningGradients {
  using Planes = CellPlanes<T, Dim, S, Wanted>;
  using Cells = typename Planes::Cells;
  static constexpr int G = int(Wanted), kStrip = Strip<T>::size;
  static constexpr int kRows = Dim == 3 ? 1 : 0;  // at each side that are looked at

 public:
  using Place = cuda::Place<Dim, G == 0 ? 0 : 1>;

  NEC_DEVICE void start(const SweepArguments<T>& a, const Place& at) {
    constexpr auto taps = AdjointTaps<T>::template of<S>();
    if constexpr (G > 0) scale_ = T(a.gradient_scale * (a.factor ? *a.factor : 1.0));
    beyond_x_[0] = taps.beyond(0, at.x == 0);
    beyond_x_[1] = taps.beyond(1, at.x + kStrip >= a.width);
    beyond_y_[0] = taps.beyond(0, at.y == 0);
    beyond_y_[1] = taps.beyond(1, at.y == a.height - 1);
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      cotangent_x_[g] = running_[g] = carried_[g] = Strip<T>{};
      // The first step completes the plane before, and on axes it is the first to complete one.
      rows_[g] = at.row(a.gradient[g], at.z - (S::on_axes ? 1 : 2));
      if constexpr (V == Variant::plain) rows_[g] += at.x * int64_t(sizeof(T));
    }
  }

  // Keeps component x of the thread's own cotangents until the next step, which on axes finds in
  // shared memory no more of it than what lies between the strips.
  NEC_DEVICE void keep_along_x(int g, const Strip<T>& cotangents) { cotangent_x_[g] = cotangents; }

  // Adds the adjoint of the cotangents of a step, as far as it takes the threads around. On axes it
  // is that of a plane alone: where there were none, what is added is never written.
  NEC_DEVICE void add_plane(const SweepArguments<T>& a, const Place& at, const Cells& cells,
                            int step, int slot) {
    const bool inside = at.computes.contain(step);
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      PlaneAdjoint<T> p[kStrip] = {};
      if (S::on_axes || inside) plane_adjoint(cells, slot, g, p);
      Strip<T> in_plane, along_z;
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        in_plane.v[i] = p[i].in_plane;
        along_z.v[i] = p[i].along_z;
        if (S::on_axes) running_[g].v[i] += p[i].in_plane;
      }
      if constexpr (!S::on_axes) complete(a, at, g, step, in_plane, along_z);
    }
  }

  // Adds what the plane of a step contributes. That completes the gradient of the plane before it.
  // On axes, `in_plane` is added in the next step.
  NEC_DEVICE void complete(const SweepArguments<T>& a, const Place& at, int g, int step,
                           const Strip<T>& in_plane, const Strip<T>& along_z) {
    constexpr auto taps = AdjointTaps<T>::template of<S>();
    Strip<T> gradient = running_[g];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      if constexpr (S::along_z_taps[2] != 0) gradient.v[i] += taps.along_z[2] * along_z.v[i];
      running_[g].v[i] = carried_[g].v[i];
      if constexpr (S::along_z_taps[1] != 0) running_[g].v[i] += taps.along_z[1] * along_z.v[i];
      carried_[g].v[i] = taps.along_z[0] * along_z.v[i];
      if constexpr (!S::on_axes) {
        gradient.v[i] += taps.in_plane[2] * in_plane.v[i];
        running_[g].v[i] += taps.in_plane[1] * in_plane.v[i];
        carried_[g].v[i] += taps.in_plane[0] * in_plane.v[i];
      }
    }
    const int z = at.z + step;
    const bool first = z == 0, last = z == a.depth - 1;
    if (first || last) {
      const PlaneAdjoint<T> more = taps.standing_in(first, last);
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        running_[g].v[i] += more.along_z * along_z.v[i];
        if constexpr (!S::on_axes) running_[g].v[i] += more.in_plane * in_plane.v[i];
      }
    }
    store(a, at, g, at.writes.contain(step - 1), gradient);
  }

 private:
  // The adjoint of the plane in a slot, at the voxels of the thread.
  NEC_DEVICE void plane_adjoint(const Cells& cells, int slot, int g,
                                PlaneAdjoint<T> (&p)[kStrip]) const {
    typename Cells::PaddedStrip w[Dim][3] = {};  // [axis][dy + 1]
    NEC_UNROLL
    // On axes component y is looked at along y, and component x along x.
    for (int axis = S::on_axes ? 1 : 0; axis < Dim; ++axis) {
      const int plane = Planes::cotangents(slot, g, axis);
      const bool along_x = axis == Dim - 1, along_y = Dim == 3 && axis == 1;
      NEC_UNROLL
      for (int dy = -kRows; dy <= kRows; ++dy) {
        auto& row = w[axis][dy + 1];
        if (!S::on_axes || !along_x) cells.read_strip(plane, dy, row);
        if (!S::on_axes || (along_x && dy == 0)) cells.read_sides(plane, dy, row);
        if (along_x) {
          row.v[0] *= beyond_x_[0];
          row.v[kStrip + 1] *= beyond_x_[1];
        } else if (along_y && dy != 0) {
          NEC_UNROLL
          for (T& voxel : row.v) voxel *= beyond_y_[dy < 0 ? 0 : 1];
        }
      }
    }
    if constexpr (S::on_axes) {
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) w[Dim - 1][1].v[i + 1] = cotangent_x_[g].v[i];
    }
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      p[i] = S::template plane_adjoint<Dim, T>([&](int axis, int dy, int dx) {
        if (S::on_axes && axis == 0) return T(0);  // added by complete()
        return w[axis][dy + 1].v[i + 1 + dx];
      });
    }
  }

  // Writes a strip of gradient `g`, or none of it, and goes on to the next plane.
  NEC_DEVICE void store(const SweepArguments<T>& a, const Place& at, int g, bool written,
                        Strip<T> gradient) {
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) gradient.v[i] *= scale_;
    const Array& array = a.gradient[g];
    if (written) {
      if constexpr (V == Variant::plain) {
        *reinterpret_cast<Strip<T>*>(rows_[g]) = gradient;
      } else {
        store_strip(array, rows_[g], at.x, a.window.lo[2], a.window.hi[2], gradient);
      }
    }
    rows_[g] += array.stride[2];
  }

  // Arrays of one element too many, since there are none of no elements.
  char* rows_[G + 1];  // of each gradient, in the plane that is complete next
  T scale_ = 0;        // of the gradient
  // Beyond a border of the image, before and after, the thread's own cotangents go on times these
  // factors. 1 where there is no border.
  T beyond_x_[2], beyond_y_[2];
  Strip<T> cotangent_x_[G + 1];               // component x in the plane before
  Strip<T> running_[G + 1], carried_[G + 1];  // of the thread's strip
};

}  // namespace nec::cuda
