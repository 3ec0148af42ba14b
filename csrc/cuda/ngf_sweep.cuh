// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Loss and gradient in one sweep: what a block of threads does with its job.
//
// The block marches along z. A thread holds its strip of the planes before and after in registers;
// the plane itself lies in shared memory, where the threads around find their neighbours. At every
// step, after a barrier,
//
//   1. the field of the plane before, complete in shared memory by now, becomes its part of the
//      gradient,
//   2. the next plane goes from registers to shared memory, the one after it is requested, and one
//      more is asked into the second-level cache,
//   3. the field dl/dd of this plane is computed, once per voxel, and put into shared memory; with
//      it the gradient of the plane before is complete, and written.
//
// So each image is read from memory once (its parts at the edge of a tile again, mostly from the
// second-level cache), and the gradient is written once. One barrier per step is enough, because
// what a step writes into shared memory is read in the next one, from another slot.
#pragma once

#include <utility>

#include "../math/stencil.h"
#include "image_march.cuh"
#include "sums.cuh"
#include "sweep_maps.cuh"
#include "voxel_field.cuh"

namespace nec::cuda {

// `S`: the Stencil of the operator.
template <typename T_, int Dim, class S, Gradients Wanted, Layout Arrays>
class NgfSweep {
  static constexpr int G = int(Wanted);
  static constexpr bool kGeneral = Arrays == Layout::general, kPlain = Arrays == Layout::plain;
  // An operator that looks along the axes only finds the planes before and after in registers, and
  // the component of the field along z too. Any other finds them in shared memory, where a plane
  // has to be one step earlier.
  static constexpr int kAhead = S::on_axes ? 0 : 1;
  static constexpr int kRows = Dim == 3 ? 1 : 0;  // at each side that are looked at
  static constexpr int kMargin = G > 0 ? 1 : 0;   // voxels around a tile where the field is needed

  // Planes in a cell of shared memory: those of both images, then those of the field. On axes, of
  // component y the strips, of component x what lies between them.
  static constexpr int kSlots = 3 + kAhead;
  static constexpr int kImages = 2 * kSlots;
  static constexpr int kFieldSlots = S::on_axes ? kSlots : 2;
  static constexpr int kStripPlanes = kImages + kFieldSlots * G * (S::on_axes ? Dim - 2 : Dim);
  static constexpr int kEdgePlanes = kImages + kFieldSlots * G * (S::on_axes ? 1 : Dim);
  using Cells = SharedCells<T_, kStripPlanes, kEdgePlanes>;
  using Window = typename Cells::Window;
  using Images = ImageMarch<T_, Place<Dim, kMargin>, Cells, kAhead, Arrays>;
  static_assert(kSlots == Images::kSlots, "a step for every slot");

  // The steps of a march use the slots in turn. Where each has code of its own, the slot is a
  // constant, and what was `here` is `before` without being copied.
  static constexpr int kUnrolled = kGeneral ? 1 : kSlots;

 public:
  using T = T_;
  using Arguments = SweepArguments<T>;
  static constexpr int kStrip = Strip<T>::size;
  // As many as there are registers for: 128, 168 or 255 for each.
  static constexpr bool kFew = kGeneral || G > 1;
  static constexpr int kMostThreads = S::on_axes ? (kFew ? 384 : 512) : kGeneral ? 256 : 384;

  static constexpr int64_t shared_bytes(int64_t threads) { return Cells::bytes(threads); }
  static constexpr int64_t most_threads(int64_t bytes) {
    const int64_t fit = Cells::most_threads(bytes);
    return fit < kMostThreads ? fit : kMostThreads;
  }

  static NEC_DEVICE void run(const Arguments& arguments, void* shared) {
    let_next_kernel_start();
    NgfSweep sweep(arguments, shared);
    sweep.march(std::make_integer_sequence<int, kUnrolled>());
    if (arguments.partials) {
      const double sum = block_sum(sweep.sum_, static_cast<double*>(shared));
      if (threadIdx.x == 0) arguments.partials[blockIdx.x] = sum;
    }
  }

 private:
  const SweepArguments<T>& a_;
  const Place<Dim, kMargin> at_;
  const Cells cells_;
  Images images_;
  Arriving<T, false> mask_;
  int step_ = 0, slot_ = 0;

  char* rows_[G + 1];  // of the gradient, in the plane that is complete next
  T scale_ = 0;        // of the gradient
  double sum_ = 0;
  // What the field goes on with beyond a border of the image, before and after, times this: that of
  // the thread itself. 1 where there is no border.
  T beyond_x_[2], beyond_y_[2];
  Strip<T> field_x_[G + 1];  // component x of the field of the plane before
  // Of the gradient of the plane before this one what it has so far, and of this one.
  Strip<T> running_[G + 1], carried_[G + 1];

  NEC_DEVICE NgfSweep(const SweepArguments<T>& a, void* shared)
      : a_(a), at_(a, kStrip), cells_(shared, a.tiling.threads(), at_.to) {
    images_.start(a, at_, cells_);
    if constexpr (kGeneral) request_mask(at_.z);
    if constexpr (G > 0) scale_ = T(a.gradient_scale * (a.factor ? *a.factor : 1.0));
    constexpr T continuation[2] = {T(S::continuation[0]), T(S::continuation[1])};
    beyond_x_[0] = at_.x == 0 ? continuation[0] : T(1);
    beyond_x_[1] = at_.x + kStrip >= a.width ? continuation[1] : T(1);
    beyond_y_[0] = at_.y == 0 ? continuation[0] : T(1);
    beyond_y_[1] = at_.y == a.height - 1 ? continuation[1] : T(1);
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      field_x_[g] = running_[g] = carried_[g] = Strip<T>{};
      // The first step completes the plane before, and on axes it is the first to complete one.
      rows_[g] = at_.row(a.gradient[g], at_.z - (S::on_axes ? 1 : 2));
      if constexpr (kPlain) rows_[g] += at_.x * int64_t(sizeof(T));
    }
  }

  // Among the planes of strips, and among those of edges.
  static NEC_DEVICE int field_plane(int slot, int gradient, int axis) {
    const int among_slots = slot % kFieldSlots * G + gradient;
    return kImages + (S::on_axes ? among_slots : among_slots * Dim + axis);
  }

  // -----------------------------------------------------------------------------------------------
  // The march
  // -----------------------------------------------------------------------------------------------

  template <int... Phases>
  NEC_DEVICE void march(std::integer_sequence<int, Phases...>) {
    while ((step<Phases>() && ...)) {
    }
  }

  // One step, and whether there was one left. `Phase` is the slot if there is a phase for each.
  template <int Phase>
  NEC_DEVICE bool step() {
    const int steps = a_.tiling.chunk + 2 * kMargin;
    if (step_ == steps + kAhead * kMargin) return false;
    __syncthreads();
    const int slot = kUnrolled > 1 ? Phase : slot_;
    if constexpr (G > 0) add_plane(step_ - 1, Images::slot_at(slot, -1));
    if (kAhead * kMargin == 0 || step_ < steps) advance(slot);
    ++step_;
    if constexpr (kUnrolled == 1) slot_ = Images::slot_at(slot, 1);
    return true;
  }

  NEC_DEVICE void advance(int slot) {
    images_.arrive(a_);
    Strip<T> along_z[G + 1] = {};
    Vec<Dim, T> d[2][kStrip];
    NEC_UNROLL
    for (int m = 0; m < 2; ++m)
      images_.template differences<S, Dim, false>(a_, cells_, m, slot, d[m]);
    images_.advance(a_, at_, cells_, at_.z + step_, slot);
    const bool inside = at_.computes.contain(step_);
    // Without a branch, what one warp waits for is hidden by more of its own work. Only maps must
    // not be read outside.
    if (!kGeneral || inside) compute_field(slot, d, along_z);
    if constexpr (kGeneral) request_mask(at_.z + step_ + 1);
    if constexpr (S::on_axes) {
      NEC_UNROLL
      for (Strip<T>& strip : along_z) {
        NEC_UNROLL
        for (T& voxel : strip.v) voxel = inside ? voxel : T(0);
      }
      NEC_UNROLL
      for (int g = 0; g < G; ++g) complete(g, step_, Strip<T>{}, along_z[g]);
    }
  }

  // A step ahead, as the images are.
  NEC_DEVICE void request_mask(int z) {
    if (!a_.mask) return;
    const char* row = a_.mask.row(at_.sample, at_.channel, clamp(z, 0, a_.depth - 1),
                                  smaller(at_.y, a_.height - 1));
    mask_.request(a_.mask, row, at_.x, a_.width);
  }

  // -----------------------------------------------------------------------------------------------
  // The field of a plane
  // -----------------------------------------------------------------------------------------------

  NEC_DEVICE void compute_field(int slot, Vec<Dim, T> (&d)[2][kStrip], Strip<T> (&along_z)[G + 1]) {
    const int z = at_.z + step_;
    Strip<T> eps[2], weight;
    bool in_range = a_.eps_in_range;
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      eps[0].v[i] = a_.eps[0];
      eps[1].v[i] = a_.eps[1];
      weight.v[i] = 1;
    }
    if constexpr (kGeneral) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m)
        if (a_.eps_map[m]) in_range &= load_eps(a_, at_, m, z, eps[m]);
      if (a_.mask) weight = checked_mask(mask_.arrive(a_.mask.dtype));
      load_weight(a_, at_, z, weight);
    }

    VoxelField<Dim, T> field[kStrip];
    if (a_.mode == EpsMode::additive) {
      in_range &= voxel_fields<EpsMode::additive>(d[0], d[1], eps[0], eps[1], field);
    } else {
      in_range &= voxel_fields<EpsMode::quadrature>(d[0], d[1], eps[0], eps[1], field);
    }
    if (!in_range) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m)
        images_.template differences<S, Dim, true>(a_, cells_, m, slot, d[m]);
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        field[i] = extreme_voxel_field(a_.mode, d[0][i], d[1][i], Images::kSmaller * eps[0].v[i],
                                       Images::kSmaller * eps[1].v[i], Images::kSmaller);
      }
    }

    if (at_.writes.contain(step_)) reduce(z, field, weight);
    if constexpr (G > 0)
      along_z[0] = publish_field(slot, 0, weight, field, &VoxelField<Dim, T>::by_d);
    if constexpr (G > 1)
      along_z[1] = publish_field(slot, 1, weight, field, &VoxelField<Dim, T>::by_e);
  }

  NEC_DEVICE void reduce(int z, const VoxelField<Dim, T> (&field)[kStrip], const Strip<T>& weight) {
    T sum = 0;
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      const bool counts = kPlain || (at_.x + i >= a_.window.lo[2] && at_.x + i < a_.window.hi[2]);
      if (counts) sum += weight.v[i] * field[i].squared_alignment;
    }
    sum_ += double(sum);
    if constexpr (kGeneral && G == 0) {
      if (!a_.loss_map) return;
      Strip<T> loss;
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        loss.v[i] = a_.weight * weight.v[i] * (1 - T(0.5) * field[i].squared_alignment);
      }
      store_strip(a_.loss_map, at_.row(a_.loss_map, z), at_.x, a_.window.lo[2], a_.window.hi[2],
                  loss);
    }
  }

  // Puts a field into shared memory and returns its component along z.
  NEC_DEVICE Strip<T> publish_field(int slot, int g, const Strip<T>& weight,
                                    const VoxelField<Dim, T> (&field)[kStrip],
                                    Vec<Dim, T> VoxelField<Dim, T>::* derivative) {
    Strip<T> along_z;
    NEC_UNROLL
    for (int axis = 0; axis < Dim; ++axis) {
      const bool along_x = axis == Dim - 1;
      Strip<T> strip;
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        strip.v[i] = (field[i].*derivative).v[axis];
        if (kGeneral) strip.v[i] *= weight.v[i];
        if (!kPlain && !along_x) strip.v[i] *= a_.axis_scale[axis];
      }
      if (axis == 0) along_z = strip;
      if (S::on_axes && axis == 0) continue;
      if constexpr (!kPlain) {  // the row may end within the strip
        NEC_UNROLL
        for (int i = 1; i < kStrip; ++i) {
          if (at_.x + i == a_.width)
            strip.v[i] = (along_x ? T(S::continuation[1]) : T(1)) * strip.v[i - 1];
        }
      }
      const int plane = field_plane(slot, g, axis);
      if (!S::on_axes || !along_x) cells_.put_strip(plane, strip);
      if (!S::on_axes || along_x) cells_.put_edges(plane, strip);
      if (along_x) field_x_[g] = strip;
    }
    return along_z;
  }

  // -----------------------------------------------------------------------------------------------
  // The gradient
  // -----------------------------------------------------------------------------------------------

  // The adjoint of the field of a step, as far as it takes the threads around. On axes it is that
  // of a plane alone: where there was no field, what is added is never written.
  NEC_DEVICE void add_plane(int step, int slot) {
    const bool inside = at_.computes.contain(step);
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      Strip<T> in_plane = {}, along_z = {};
      if (S::on_axes || inside) {
        PlaneAdjoint<T> p[kStrip];
        plane_adjoint(slot, g, p);
        NEC_UNROLL
        for (int i = 0; i < kStrip; ++i) {
          in_plane.v[i] = p[i].in_plane;
          along_z.v[i] = p[i].along_z;
          if (S::on_axes) running_[g].v[i] += p[i].in_plane;
        }
      }
      if constexpr (!S::on_axes) complete(g, step, in_plane, along_z);
    }
  }

  NEC_DEVICE void plane_adjoint(int slot, int g, PlaneAdjoint<T> (&p)[kStrip]) const {
    Window w[Dim][3] = {};
    NEC_UNROLL
    for (int axis = S::on_axes ? 1 : 0; axis < Dim; ++axis) {
      const int plane = field_plane(slot, g, axis);
      const bool along_x = axis == Dim - 1, along_y = Dim == 3 && axis == 1;
      NEC_UNROLL
      for (int dy = -kRows; dy <= kRows; ++dy) {
        Window& row = w[axis][dy + 1];
        if (!S::on_axes || !along_x) cells_.read_strip(plane, dy, row);
        if (!S::on_axes || (along_x && dy == 0)) cells_.read_sides(plane, dy, row);
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
      for (int i = 0; i < kStrip; ++i) w[Dim - 1][1].v[i + 1] = field_x_[g].v[i];
    }
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      p[i] = S::template plane_adjoint<Dim, T>([&](int axis, int dy, int dx) {
        if (S::on_axes && axis == 0) return T(0);  // added by complete()
        return w[axis][dy + 1].v[i + 1 + dx];
      });
    }
  }

  // Adds what the plane of a step contributes. That completes the gradient of the plane before it.
  // On axes, `in_plane` is added in the next step.
  NEC_DEVICE void complete(int g, int step, const Strip<T>& in_plane, const Strip<T>& along_z) {
    constexpr T spread[3] = {T(S::spread[0]), T(S::spread[1]), T(S::spread[2])};
    constexpr T taps[3] = {T(S::adjoint_taps[0]), T(S::adjoint_taps[1]), T(S::adjoint_taps[2])};
    constexpr T continuation[2] = {T(S::continuation[0]), T(S::continuation[1])};
    Strip<T> gradient = running_[g];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      gradient.v[i] += taps[2] * along_z.v[i];
      running_[g].v[i] = carried_[g].v[i];
      if constexpr (S::adjoint_taps[1] != 0) running_[g].v[i] += taps[1] * along_z.v[i];
      carried_[g].v[i] = taps[0] * along_z.v[i];
      if constexpr (!S::on_axes) {
        gradient.v[i] += spread[2] * in_plane.v[i];
        running_[g].v[i] += spread[1] * in_plane.v[i];
        carried_[g].v[i] += spread[0] * in_plane.v[i];
      }
    }
    // At an end of the array the plane stands in for the one beyond.
    const int z = at_.z + step;
    const bool first = z == 0, last = z == a_.depth - 1;
    if (first || last) {
      const T tap = first * taps[0] * continuation[0] + last * taps[2] * continuation[1];
      const T more = first * spread[0] + last * spread[2];
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        running_[g].v[i] += tap * along_z.v[i];
        if constexpr (!S::on_axes) running_[g].v[i] += more * in_plane.v[i];
      }
    }
    store(g, at_.writes.contain(step - 1), gradient);
  }

  NEC_DEVICE void store(int g, bool written, Strip<T> gradient) {
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) gradient.v[i] *= scale_;
    const Array& array = a_.gradient[g];
    const int x = at_.x, low = a_.window.lo[2], high = a_.window.hi[2];
    if (written) {
      if constexpr (kPlain) {
        *reinterpret_cast<Strip<T>*>(rows_[g]) = gradient;
      } else {
        store_strip(array, rows_[g], x, low, high, gradient);
      }
    }
    rows_[g] += array.stride[2];
  }
};

}  // namespace nec::cuda
