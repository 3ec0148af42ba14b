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
//   2. the next plane goes from registers to shared memory, and the one after it is requested,
//   3. the field dl/dd of this plane is computed, once per voxel, and put into shared memory; with
//      it the gradient of the plane before is complete, and written.
//
// So each image is read from memory once (its parts at the edge of a tile again, mostly from the
// second-level cache), and the gradient is written once. One barrier per step is enough, because
// what a step writes into shared memory is read in the next one, from the other of two buffers.
#pragma once

#include "../math/stencil.h"
#include "sums.cuh"
#include "sweep_maps.cuh"
#include "voxel_field.cuh"

namespace nec::cuda {

template <typename T_, int Dim, Operator Op, Gradients Wanted, Layout Arrays>
class NgfSweep {
  using S = Stencil<Op>;
  static constexpr int G = int(Wanted);
  static constexpr bool kGeneral = Arrays == Layout::general;
  // An operator that looks along the axes only finds the planes before and after in registers, and
  // the component of the field along z too. Any other finds them in shared memory, where a plane
  // has to be one step earlier.
  static constexpr int kAhead = S::on_axes ? 0 : 1;
  static constexpr int kRing = 2 + 2 * kAhead;           // planes of each image
  static constexpr int kFirstAxis = S::on_axes ? 1 : 0;  // of the components in shared memory
  static constexpr int kComponents = Dim - kFirstAxis;
  static constexpr int kPlanes = 2 * kRing + 2 * G * kComponents;
  static constexpr int kMargin = G > 0 ? 1 : 0;  // voxels around a tile where the field is needed

 public:
  using T = T_;
  using Arguments = SweepArguments<T>;
  static constexpr int kStrip = Strip<T>::size;
  static constexpr int kMostThreads = kGeneral || G > 1 ? 384 : 768;

  // Before and after each plane there is one strip more, for what a window of the first or the last
  // thread reads and does not use. It must not be in another plane, which is being written.
  static constexpr int64_t shared_bytes(int64_t strips) {
    return (kPlanes * (strips + 1) + 1) * int64_t(sizeof(Strip<T>));
  }
  static constexpr int64_t most_threads(int64_t bytes) {
    const int64_t fit = (bytes / int64_t(sizeof(Strip<T>)) - 1) / kPlanes - 1;
    return fit < kMostThreads ? fit : kMostThreads;
  }

  static NEC_DEVICE void run(const Arguments& arguments, void* shared) {
    NgfSweep sweep(arguments, static_cast<Strip<T>*>(shared) + 1);
    sweep.march();
    if (arguments.partials) {
      const double sum = block_sum(sweep.sum_, static_cast<double*>(shared));
      if (threadIdx.x == 0) arguments.partials[blockIdx.x] = sum;
    }
  }

 private:
  // -----------------------------------------------------------------------------------------------
  // A thread
  // -----------------------------------------------------------------------------------------------

  const SweepArguments<T>& a_;
  Strip<T>* const shared_;
  const Place<Dim, kMargin> at_;

  T scale_ = 0;  // of the gradient
  double sum_ = 0;
  Strip<T> before_[2], next_[2];  // planes of both images: before this one; not yet shared
  Strip<T> running_[G + 1];       // gradient of the plane before, without what this one adds
  Strip<T> carried_[G + 1];       // what the planes so far add to the gradient of this one

  NEC_DEVICE NgfSweep(const SweepArguments<T>& a, Strip<T>* shared)
      : a_(a), shared_(shared), at_(a, kStrip) {
    if constexpr (G > 0) scale_ = T(a.gradient_scale * (a.factor ? *a.factor : 1.0));
    NEC_UNROLL
    for (int g = 0; g < G; ++g) running_[g] = carried_[g] = Strip<T>{};
  }

  // The thread's strip of a plane in shared memory. `plane` counts those of both images in the
  // ring, then those of the field in two buffers.
  NEC_DEVICE Strip<T>* shared_strip(int plane) const {
    return shared_ + plane * (a_.tiling.rows * a_.tiling.strips + 1) + at_.own;
  }
  NEC_DEVICE Strip<T>* image_strip(int image, int slot) const {
    return shared_strip(slot % kRing * 2 + image);
  }
  NEC_DEVICE Strip<T>* field_strip(int step, int gradient, int axis) const {
    return shared_strip(2 * kRing + (step % 2 * G + gradient) * kComponents + axis - kFirstAxis);
  }

  // A row of a plane in shared memory around the thread: [0] is the voxel before its strip.
  struct Window {
    T v[kStrip + 2];
  };
  NEC_DEVICE Window window(const Strip<T>* own, int dy) const {
    const Strip<T>* at = own + dy * a_.tiling.strips;
    const T* values = at->v;
    const Strip<T> strip = *at;
    Window w;
    w.v[0] = values[-1];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) w.v[i + 1] = strip.v[i];
    w.v[kStrip + 1] = values[kStrip];
    return w;
  }

  // -----------------------------------------------------------------------------------------------
  // The march
  // -----------------------------------------------------------------------------------------------

  NEC_DEVICE void march() {
    const int first = at_.z_begin - kMargin;
    const int steps = a_.tiling.chunk + 2 * kMargin;
    load(first - 1, before_);
    for (int k = 0; k <= 2 * kAhead; ++k) {
      load(first - kAhead + k, next_);
      publish(k);
    }
    load(first + 1 + kAhead, next_);
    for (int step = 0; step < steps + kAhead * kMargin; ++step) {
      __syncthreads();
      const int z = first + step;
      if (kMargin > 0 && step > 0) add_plane(step - 1, z - 1);
      if (step < steps) advance(step, z);
    }
  }

  NEC_DEVICE void advance(int step, int z) {
    const bool active = at_.computes && z >= 0 && z < a_.depth && z < at_.z_end + kMargin;
    publish(step + 1 + 2 * kAhead);
    Vec<Dim, T> d[kStrip] = {}, e[kStrip] = {};
    if (active) {
      differences(0, step, d);
      differences(1, step, e);
    }
    // From here on the registers of the planes around are free.
    before_[0] = *image_strip(0, step);
    before_[1] = *image_strip(1, step);
    load(z + 2 + kAhead, next_);
    Strip<T> along_z[G + 1] = {};
    if (active) compute_field(step, z, d, e, along_z);
    if constexpr (S::on_axes) {
      NEC_UNROLL
      for (int g = 0; g < G; ++g) complete(g, z, Strip<T>{}, along_z[g]);
    }
  }

  NEC_DEVICE void load(int z, Strip<T> (&strips)[2]) const {
    if (!at_.present) return;
    const int y = clamp(at_.y, 0, a_.height - 1);
    z = clamp(z, 0, a_.depth - 1);
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      const Array& image = a_.image[m];
      const char* row = image.row(at_.sample, at_.channel, z, y);
      if constexpr (kGeneral) {
        strips[m] = load_strip<T>(image, row, at_.x, a_.width);
      } else {
        strips[m] = load_whole_strip<T>(row, at_.x, a_.width);
      }
    }
  }

  NEC_DEVICE void publish(int slot) const {
    if (!at_.present) return;
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) *image_strip(m, slot) = next_[m];
  }

  // -----------------------------------------------------------------------------------------------
  // The field of a plane
  // -----------------------------------------------------------------------------------------------

  NEC_DEVICE void differences(int m, int step, Vec<Dim, T> (&d)[kStrip]) const {
    Window w[3][3];  // what the operator does not look at is never read
    NEC_UNROLL
    for (int dz = -kAhead; dz <= kAhead; ++dz) {
      const Strip<T>* own = image_strip(m, step + dz + kAhead);
      NEC_UNROLL
      for (int dy = -1; dy <= 1; ++dy) w[dz + 1][dy + 1] = window(own, Dim == 3 ? dy : 0);
    }
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      d[i] = S::template gradient<Dim, T>([&](int dz, int dy, int dx) {
        if (S::on_axes && dz != 0) return dz < 0 ? before_[m].v[i] : next_[m].v[i];
        return w[dz + 1][dy + 1].v[i + 1 + dx];
      });
      if constexpr (Arrays != Layout::plain) {
        NEC_UNROLL
        for (int k = 0; k < Dim - 1; ++k) d[i].v[k] *= a_.axis_scale[k];
      }
    }
  }

  NEC_DEVICE void compute_field(int step, int z, const Vec<Dim, T> (&d)[kStrip],
                                const Vec<Dim, T> (&e)[kStrip], Strip<T> (&along_z)[G + 1]) {
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
      load_weight(a_, at_, z, weight);
    }

    VoxelField<Dim, T> field[kStrip];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      field[i] = voxel_field(a_.mode, d[i], e[i], eps[0].v[i], eps[1].v[i]);
      if (!(in_range && field[i].in_range))
        field[i] = normalized_voxel_field(a_.mode, d[i], e[i], eps[0].v[i], eps[1].v[i]);
    }

    if (at_.writes && z >= at_.z_begin && z < at_.z_end) reduce(z, field, weight);
    if constexpr (G > 0)
      along_z[0] = publish_field(step, 0, weight, field, &VoxelField<Dim, T>::by_d);
    if constexpr (G > 1)
      along_z[1] = publish_field(step, 1, weight, field, &VoxelField<Dim, T>::by_e);
  }

  NEC_DEVICE void reduce(int z, const VoxelField<Dim, T> (&field)[kStrip], const Strip<T>& weight) {
    T sum = 0;
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      const bool counts =
          !kGeneral || (at_.x + i >= a_.window.lo[2] && at_.x + i < a_.window.hi[2]);
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
  NEC_DEVICE Strip<T> publish_field(int step, int g, const Strip<T>& weight,
                                    const VoxelField<Dim, T> (&field)[kStrip],
                                    Vec<Dim, T> VoxelField<Dim, T>::* derivative) const {
    Strip<T> along_z;
    NEC_UNROLL
    for (int axis = 0; axis < Dim; ++axis) {
      Strip<T> strip;
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        strip.v[i] = (field[i].*derivative).v[axis];
        if (kGeneral) strip.v[i] *= weight.v[i];
        if (Arrays != Layout::plain && axis < Dim - 1) strip.v[i] *= a_.axis_scale[axis];
      }
      if (axis == 0) along_z = strip;
      if (axis < kFirstAxis) continue;
      // Beyond the border the field goes on as stencil.h says: the owner of the last voxel writes
      // that too.
      Strip<T>* own = field_strip(step, g, axis);
      publish_row(own, axis, strip, 1);
      if constexpr (Dim == 3) {
        constexpr int first = S::continuation[0], last = S::continuation[1];
        if (at_.y == 0) publish_row(own - a_.tiling.strips, axis, strip, axis == 1 ? first : 1);
        if (at_.y == a_.height - 1)
          publish_row(own + a_.tiling.strips, axis, strip, axis == 1 ? last : 1);
      }
    }
    return along_z;
  }

  NEC_DEVICE void publish_row(Strip<T>* at, int axis, Strip<T> strip, T sign) const {
    constexpr int first = S::continuation[0], last = S::continuation[1];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) strip.v[i] *= sign;
    *at = strip;
    T* values = at->v;
    if (at_.first) values[-1] = (axis == Dim - 1 ? T(first) : T(1)) * strip.v[0];
    if (at_.last) {
      const int end = a_.width - at_.x;
      values[end] = (axis == Dim - 1 ? T(last) : T(1)) * values[end - 1];
    }
  }

  // -----------------------------------------------------------------------------------------------
  // The gradient
  // -----------------------------------------------------------------------------------------------

  // The adjoint of the field of plane z, as far as it takes the threads around.
  NEC_DEVICE void add_plane(int step, int z) {
    if (!at_.writes) return;
    const bool inside = z >= 0 && z < a_.depth;
    NEC_UNROLL
    for (int g = 0; g < G; ++g) {
      Strip<T> in_plane = {}, along_z = {};
      if (inside) {
        Window w[Dim][3];
        NEC_UNROLL
        for (int axis = kFirstAxis; axis < Dim; ++axis) {
          const Strip<T>* own = field_strip(step, g, axis);
          NEC_UNROLL
          for (int dy = -1; dy <= 1; ++dy) w[axis][dy + 1] = window(own, Dim == 3 ? dy : 0);
        }
        NEC_UNROLL
        for (int i = 0; i < kStrip; ++i) {
          const auto p = S::template plane_adjoint<Dim, T>([&](int axis, int dy, int dx) {
            return axis < kFirstAxis ? T(0) : w[axis][dy + 1].v[i + 1 + dx];
          });
          in_plane.v[i] = p.in_plane;
          along_z.v[i] = p.along_z;
        }
      }
      if constexpr (S::on_axes) {
        NEC_UNROLL
        for (int i = 0; i < kStrip; ++i) running_[g].v[i] += in_plane.v[i];
      } else {
        complete(g, z, in_plane, along_z);
      }
    }
  }

  // Adds what plane z contributes. That completes the gradient of plane z - 1. On axes, `in_plane`
  // is added later.
  NEC_DEVICE void complete(int g, int z, const Strip<T>& in_plane, const Strip<T>& along_z) {
    if (!at_.writes || z > at_.z_end) return;
    constexpr T spread[3] = {T(S::spread[0]), T(S::spread[1]), T(S::spread[2])};
    constexpr T taps[3] = {T(S::adjoint_taps[0]), T(S::adjoint_taps[1]), T(S::adjoint_taps[2])};
    constexpr T continuation[2] = {T(S::continuation[0]), T(S::continuation[1])};
    // At an end of the array the plane stands in for the one beyond.
    T own_in_plane = spread[1], own_along_z = taps[1];
    if (z == 0) {
      own_in_plane += spread[0];
      own_along_z += taps[0] * continuation[0];
    }
    if (z == a_.depth - 1) {
      own_in_plane += spread[2];
      own_along_z += taps[2] * continuation[1];
    }
    Strip<T> gradient = running_[g];
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      gradient.v[i] += taps[2] * along_z.v[i];
      running_[g].v[i] = carried_[g].v[i] + own_along_z * along_z.v[i];
      carried_[g].v[i] = taps[0] * along_z.v[i];
      if constexpr (!S::on_axes) {
        gradient.v[i] += spread[2] * in_plane.v[i];
        running_[g].v[i] += own_in_plane * in_plane.v[i];
        carried_[g].v[i] += spread[0] * in_plane.v[i];
      }
    }
    if (z > at_.z_begin) store(g, z - 1, gradient);
  }

  NEC_DEVICE void store(int g, int z, Strip<T> gradient) const {
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) gradient.v[i] *= scale_;
    const Array& array = a_.gradient[g];
    char* row = at_.row(array, z);
    if constexpr (kGeneral) {
      store_strip(array, row, at_.x, a_.window.lo[2], a_.window.hi[2], gradient);
    } else {
      *reinterpret_cast<Strip<T>*>(row + at_.x * int64_t(sizeof(T))) = gradient;
    }
  }
};

}  // namespace nec::cuda
