// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Loss and gradient in one march along z: what a block of threads does with its piece.
//
// A thread holds its strip of the planes before and after in registers; the plane itself lies in
// shared memory, where the threads around find their neighbours. At every step, after a barrier,
//
//   1. the cotangents of the plane before, complete in shared memory by now, become its part of the
//      gradient (gradient.cuh),
//   2. the next plane goes from registers to shared memory, the one after it is requested, and one
//      more is asked into the second-level cache (images.cuh),
//   3. the cotangents dl/dd of this plane are computed, once per voxel, and put into shared memory;
//      with them the gradient of the plane before is complete, and written.
//
// So each image is read from memory once (its parts at the edge of a tile again, mostly from the
// second-level cache), and the gradient is written once. One barrier per step is enough, because
// what a step writes into shared memory is read in the next one, from another slot.
#pragma once

#include <utility>

#include "cotangents.cuh"
#include "gradient.cuh"
#include "images.cuh"
#include "maps.cuh"
#include "sums.cuh"

namespace nec::cuda {

// `S`: the Stencil of the operator. A March is what one thread has of the piece, and its members
// are registers: all is inlined into one kernel.
template <typename T_, int Dim, class S, Gradients Wanted, Variant V>
class March {
  static constexpr int G = int(Wanted);
  static constexpr bool kPlain = V == Variant::plain, kFormed = V == Variant::formed;
  static constexpr bool kGeneral = V == Variant::general || kFormed;
  // float64 has one variant for all formulas.
  static constexpr bool kSquared = !kFormed || sizeof(T_) == 8;
  static constexpr int kMargin = G > 0 ? 1 : 0;  // voxels around a tile where cotangents are needed
  using Planes = CellPlanes<T_, Dim, S, Wanted>;
  static constexpr int kAhead = Planes::kAhead;

  // The steps of a march use the slots in turn. Where each has code of its own, the slot is a
  // constant, and what was `here` is `before` without being copied.
  static constexpr int kUnrolled = kGeneral ? 1 : Planes::kSlots;

 public:
  using T = T_;
  using Arguments = SweepArguments<T>;
  static constexpr int kStrip = Strip<T>::size;
  // As many as there are registers for: 128, 168 or 255 for each.
  static constexpr bool kLarge = G > 1 || (!S::on_axes && Dim == 3);
  static constexpr int kMostThreads = !kGeneral ? (kLarge ? 384 : 512) : S::on_axes ? 384 : 256;

  static constexpr int64_t shared_bytes(int64_t threads) { return Planes::Cells::bytes(threads); }
  static constexpr int64_t most_threads(int64_t bytes) {
    const int64_t fit = Planes::Cells::most_threads(bytes);
    return fit < kMostThreads ? fit : kMostThreads;
  }

  // The kernel. `shared`: shared_bytes of the block's threads.
  static NEC_DEVICE void run(const Arguments& arguments, void* shared) {
    // Only a kernel of ours waits for what this one writes: the total of its partial sums.
    if (arguments.partials) let_next_kernel_start();
    March march(arguments, shared);
    march.take_steps(std::make_integer_sequence<int, kUnrolled>());
    if (arguments.partials) {
      const double sum = block_sum(march.sum_, static_cast<double*>(shared));
      if (threadIdx.x == 0) arguments.partials[blockIdx.x] = sum;
    }
  }

 private:
  const SweepArguments<T>& a_;  // in constant memory
  const Place<Dim, kMargin> at_;
  const typename Planes::Cells cells_;
  Images<T, Dim, S, Wanted, V> images_;
  PendingStrip<T, false> mask_;  // of the next plane
  int step_ = 0;                 // of the march: the plane at hand is at_.z + step_
  int slot_ = 0;                 // of that plane, where the steps have no code of their own for it
  RunningGradients<T, Dim, S, Wanted, V> gradients_;
  double sum_ = 0;  // of weight * value, over the thread's voxels

  // Reads the planes that the first step looks at.
  NEC_DEVICE March(const SweepArguments<T>& a, void* shared)
      : a_(a), at_(a, kStrip), cells_(shared, a.tiling.threads(), at_.to) {
    images_.start(a, at_, cells_);
    if constexpr (kGeneral) request_mask(at_.z);
    gradients_.start(a, at_);
  }

  // -----------------------------------------------------------------------------------------------
  // The steps
  // -----------------------------------------------------------------------------------------------

  // A round of steps after the other, one for each slot, until one finds nothing left to do.
  template <int... Phases>
  NEC_DEVICE void take_steps(std::integer_sequence<int, Phases...>) {
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
    if constexpr (G > 0)
      gradients_.add_plane(a_, at_, cells_, step_ - 1, Planes::slot_at(slot, -1));
    if (kAhead * kMargin == 0 || step_ < steps) advance(slot);
    ++step_;
    if constexpr (kUnrolled == 1) slot_ = Planes::slot_at(slot, 1);
    return true;
  }

  // Does all of a step but the gradient of the plane before. Differences come first: once the
  // next plane is in shared memory, `before` is gone from the registers.
  NEC_DEVICE void advance(int slot) {
    images_.arrive(a_);
    Strip<T> along_z[G + 1] = {};  // of the cotangents, per gradient
    Vec<Dim, T> d[2][kStrip];      // differences of input and target
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) images_.template differences<false>(a_, cells_, m, slot, d[m]);
    images_.advance(a_, at_, cells_, at_.z + step_, slot);
    const bool inside = at_.computes.contain(step_);
    // Without a branch, what one warp waits for is hidden by more of its own work. Only maps must
    // not be read, nor written, outside.
    if (!kGeneral || inside) compute_cotangents(slot, d, along_z);
    if constexpr (kGeneral) request_mask(at_.z + step_ + 1);
    if constexpr (S::on_axes) {
      NEC_UNROLL
      for (Strip<T>& strip : along_z) {
        NEC_UNROLL
        for (T& voxel : strip.v) voxel = inside ? voxel : T(0);
      }
      NEC_UNROLL
      for (int g = 0; g < G; ++g) gradients_.complete(a_, at_, g, step_, Strip<T>{}, along_z[g]);
    }
  }

  // A step ahead, as the images are.
  NEC_DEVICE void request_mask(int z) {
    if (!a_.mask) return;
    mask_.request(a_.mask, at_.row_inside(a_, a_.mask, z), at_.x, a_.width);
  }

  // -----------------------------------------------------------------------------------------------
  // The cotangents of a plane
  // -----------------------------------------------------------------------------------------------

  // Sums and publishes the cotangents of the plane at hand, from its differences `d`.
  NEC_DEVICE void compute_cotangents(int slot, Vec<Dim, T> (&d)[2][kStrip],
                                     Strip<T> (&along_z)[G + 1]) {
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
      if (a_.mask) weight = checked_masks(mask_.arrive(a_.mask.dtype));
      load_weight(a_, at_, z, weight);
    }

    VoxelCotangents<Dim, T> voxels[kStrip];
    in_range &= cotangents_of<Formula::additive>(d, eps, voxels);
    // A strip is computed once more as a whole: extremes are rare, and come together.
    if (!in_range) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) images_.template differences<true>(a_, cells_, m, slot, d[m]);
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        voxels[i] = extreme_voxel_cotangents<kFormed>(
            is_additive(a_.formula), a_.form, d[0][i], d[1][i], images_.kExtremeScale * eps[0].v[i],
            images_.kExtremeScale * eps[1].v[i], images_.kExtremeScale);
      }
    }

    if (at_.writes.contain(step_)) reduce(z, voxels, weight);
    if constexpr (G > 0)
      along_z[0] = publish_cotangents(slot, 0, weight, voxels, &VoxelCotangents<Dim, T>::by_d);
    if constexpr (G > 1)
      along_z[1] = publish_cotangents(slot, 1, weight, voxels, &VoxelCotangents<Dim, T>::by_e);
  }

  // Computes the voxels by the formula of the problem, which is F or a later one. A formula that
  // the variant is never asked for is no part of its code.
  template <Formula F>
  NEC_DEVICE bool cotangents_of(const Vec<Dim, T> (&d)[2][kStrip], const Strip<T> (&eps)[2],
                                VoxelCotangents<Dim, T> (&voxels)[kStrip]) const {
    constexpr bool is_last = F == (kFormed ? Formula::any_root : Formula::quadrature);
    if constexpr (has_any_form(F) ? kFormed : kSquared) {
      if (is_last || a_.formula == F)
        return voxel_cotangents<F>(d[0], d[1], eps[0], eps[1], a_.form, voxels);
    }
    if constexpr (is_last) {
      return false;
    } else {
      constexpr auto next = static_cast<Formula>(static_cast<int>(F) + 1);
      return cotangents_of<next>(d, eps, voxels);
    }
  }

  // Adds the voxels that are the thread's to the sum, and writes what is asked for of each.
  NEC_DEVICE void reduce(int z, const VoxelCotangents<Dim, T> (&voxels)[kStrip],
                         const Strip<T>& weight) {
    T sum = 0;
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) {
      const bool counts = kPlain || (at_.x + i >= a_.window.lo[2] && at_.x + i < a_.window.hi[2]);
      if (counts) sum += weight.v[i] * voxels[i].value;
    }
    sum_ += double(sum);
    if constexpr (kGeneral && G == 0) {
      if (a_.loss_map) {
        store_map(a_.loss_map, z,
                  [&](int i) { return a_.loss.voxel(a_.weight * weight.v[i], voxels[i].value); });
      }
      NEC_UNROLL
      for (int m = 0; m < (kFormed ? 2 : 0); ++m) {
        if (!a_.by_eps[m]) continue;
        const T scale = T(a_.gradient_scale) * a_.eps_scale;
        store_map(a_.by_eps[m], z,
                  [&](int i) { return scale * weight.v[i] * voxels[i].by_eps[m]; });
      }
    }
  }

  // Writes a value for each voxel of the strip that is the thread's.
  template <typename F>
  NEC_DEVICE void store_map(const Array& map, int z, const F& value_at) const {
    Strip<T> strip;
    NEC_UNROLL
    for (int i = 0; i < kStrip; ++i) strip.v[i] = value_at(i);
    store_strip(map, at_.row(map, z), at_.x, a_.window.lo[2], a_.window.hi[2], strip);
  }

  // Puts the cotangents of an image into shared memory and returns their component along z.
  NEC_DEVICE Strip<T> publish_cotangents(int slot, int g, const Strip<T>& weight,
                                         const VoxelCotangents<Dim, T> (&voxels)[kStrip],
                                         Vec<Dim, T> VoxelCotangents<Dim, T>::* derivative) {
    Strip<T> along_z;
    NEC_UNROLL
    for (int axis = 0; axis < Dim; ++axis) {
      const bool along_x = axis == Dim - 1;
      Strip<T> strip;
      NEC_UNROLL
      for (int i = 0; i < kStrip; ++i) {
        strip.v[i] = (voxels[i].*derivative).v[axis];
        if (kGeneral) strip.v[i] *= weight.v[i];
        if (!kPlain && !along_x) strip.v[i] *= a_.axis_scale[axis];
      }
      // On axes a difference along z has no neighbours in this plane: it stays with the thread.
      if (axis == 0) along_z = strip;
      if (S::on_axes && axis == 0) continue;
      if constexpr (!kPlain) {  // the row may end within the strip
        NEC_UNROLL
        for (int i = 1; i < kStrip; ++i) {
          if (at_.x + i == a_.width)
            strip.v[i] = (along_x ? T(S::continuation[1]) : T(1)) * strip.v[i - 1];
        }
      }
      const int plane = Planes::cotangents(slot, g, axis);
      if (!S::on_axes || !along_x) cells_.put_strip(plane, strip);
      if (!S::on_axes || along_x) cells_.put_edges(plane, strip);
      if (along_x) gradients_.keep_along_x(g, strip);
    }
    return along_z;
  }
};

}  // namespace nec::cuda
