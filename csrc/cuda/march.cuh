// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Loss and gradient in one march along z: what a block of threads does with its piece.
//
// At every step, once the next plane has arrived in shared memory, and after a barrier,
//
//   1. a plane further ahead is requested, into the slot that nobody looks at any more (ring.cuh),
//   2. what the threads around contribute to the gradient of the plane before is added: their
//      cotangents of it are in shared memory by now (gradient.cuh),
//   3. the cotangents dl/dd of this plane are computed, once per voxel, and put there too; with
//      them the gradient of the plane before is complete, and written.
//
// So each image is read from memory once (its parts at the edge of a tile again, mostly from the
// second-level cache), and the gradient is written once. One barrier per step is enough, because
// what a step writes into shared memory is read in the next one, from another slot.
#pragma once

#include <utility>

#include "cotangents.cuh"
#include "gradient.cuh"
#include "images.cuh"
#include "ring.cuh"
#include "sums.cuh"

namespace nec::cuda {

// `S`: the Stencil of the operator. A March is what one thread has of the piece, and its members
// are registers: all is inlined into one kernel. The general variant computes both gradients, and
// writes what is asked for.
template <typename T_, int Dim, class S, Gradients Wanted, Variant V>
class March {
 public:
  using T = T_;
  static constexpr int G = int(Wanted), N = Strip<T>::size;
  static constexpr bool kGeneral = V == Variant::general, kWeighted = V != Variant::bare;
  static constexpr int R = Dim == 3 && S::on_axes && !kGeneral ? 2 : 1;  // rows of a thread
  static constexpr int kPhases = S::on_axes && !kGeneral ? 3 : 1;
  using Cells = cuda::Cells<T, Dim, S, G, R>;
  using Images = std::conditional_t<S::on_axes, AxisImages<T, Dim, S, Cells, R, kPhases>,
                                    SobelImages<T, Dim, S, Cells>>;
  using Gradients_ = RunningGradients<T, Dim, S, Cells, G, R, kGeneral>;
  static constexpr int kDelay = G > 0 ? Gradients_::kDelay : 0;
  // As many as there are registers for: 128, 168 or 255 for each.
  static constexpr bool kLarge = kGeneral || (kWeighted && R * G == 4);
  static constexpr int kMostThreads = kLarge ? 256 : Dim == 2 && G < 2 ? 512 : 384;

  NEC_DEVICE March(const SweepArguments<T>& a, void* shared)
      : a_(a), at_(a, shared), ring_(at_), z_(at_.z) {
    ring_.start(at_);
    slot_ = ring_.slot_after(a.first_slot);
    images_ = Images();
    images_.template advance<1 % kPhases>(at_, a.first_slot);
    images_.template advance<2 % kPhases>(at_, slot_);
    gradients_.start(at_, Images::kUnit);
  }

  // Returns the sum of weight * value over the thread's voxels.
  NEC_DEVICE double run() {
    take_steps(std::make_integer_sequence<int, kPhases>());
    // Nothing may be on its way into shared memory that is used for something else.
    wait_for_copies<0>();
    if constexpr (G > 0) {
      if (a_.staged) {  // by the last step
        __syncthreads();
        gradients_.write_staged(at_, z_);
      }
    }
    return sum_;
  }

 private:
  const SweepArguments<T>& a_;  // in constant memory
  const Cells at_;
  Ring<T, Dim, Cells, R, kWeighted> ring_;
  Images images_;
  Gradients_ gradients_;
  int z_;     // of the plane at hand
  int slot_;  // of that plane
  double sum_ = 0;

  // A round of steps after the other, one for each phase, until one finds nothing left to do.
  template <int... Phases>
  NEC_DEVICE void take_steps(std::integer_sequence<int, Phases...>) {
    while ((step<Phases>() && ...)) {
    }
  }

  // One step, and whether there was one left.
  template <int Phase>
  NEC_DEVICE bool step() {
    // The last step of a march may be there for the adjoint alone.
    if (z_ == at_.end + a_.tiling.margin * kDelay) return false;
    const int next = ring_.slot_after(slot_);
    ring_.arrive(at_, next);
    ring_.request(at_, ring_.slot_before(slot_), z_ - 1 + a_.tiling.slots);
    gradients_.write_staged(at_, z_);
    gradients_.add_plane(at_, z_ - 1);
    if (kDelay == 0 || z_ < at_.end) {
      images_.template advance<Phase>(at_, next);
      if (z_ < a_.depth) {
        compute_plane<Phase>(z_);
      } else {
        gradients_.skip(at_, z_);
      }
    }
    slot_ = next;
    ++z_;
    return true;
  }

  // Sums and publishes the cotangents of the plane at hand.
  template <int Phase>
  NEC_DEVICE void compute_plane(int z) {
    NEC_UNROLL
    for (int r = 0; r < R; ++r) {
      Strip<T> weight;
      Cotangents<Dim, T> voxels;
      compute_row<Phase>(z, r, weight, voxels);
      Strip<T> values = voxels.value;
      if constexpr (kWeighted) {
        values *= weight;
        NEC_UNROLL
        for (int g = 0; g < G; ++g) {
          NEC_UNROLL
          for (Strip<T>& component : voxels.by[g]) component *= weight;
        }
      }
      if (a_.broken_strips) mend(voxels, values);
      if (at_.writes(z, r)) reduce(z, r, voxels, weight, values);
      NEC_UNROLL
      for (int g = 0; g < G; ++g) {
        NEC_UNROLL
        for (int k = 0; kWeighted && k < Dim - 1; ++k)
          voxels.by[g][k] = a_.axis_scale[k] * voxels.by[g][k];
        gradients_.put(at_, z, g, r, voxels.by[g]);
      }
    }
  }

  template <int Phase>
  NEC_DEVICE void compute_row(int z, int r, Strip<T>& weight, Cotangents<Dim, T>& voxels) {
    Vec<Dim, T> d[2][N];
    differences<Phase, false>(r, d);
    Strip<T> eps[2];
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) eps[m] = Strip<T>::of([&](int) { return a_.eps[m]; });
    weight = Strip<T>::of([](int) { return T(1); });
    if constexpr (kWeighted) {
      if (a_.source[2].array) weight = ring_.mask(at_, slot_, r);
    }
    bool in_range = true;
    if constexpr (kGeneral) in_range = load_maps(z, eps, weight);
    // The general variant uses the formulas of any form for all of them.
    constexpr Formula additive = kGeneral ? Formula::any_additive : Formula::additive;
    constexpr Formula root = kGeneral ? Formula::any_root : Formula::quadrature;
    if (a_.additive) {
      in_range &= strip_cotangents<additive>(d, eps, a_.form, voxels);
    } else {
      in_range &= strip_cotangents<root>(d, eps, a_.form, voxels);
    }
    // A strip is computed once more as a whole: extremes are rare, and come together.
    if (!in_range || !a_.eps_in_range) {
      differences<Phase, true>(r, d);
      NEC_UNROLL
      for (int i = 0; i < N; ++i)
        extreme_voxel_cotangents<kGeneral>(a_.additive, a_.form, d, eps, Images::kExtremeScale, i,
                                           voxels);
    }
  }

  template <int Phase, bool Again>
  NEC_DEVICE void differences(int r, Vec<Dim, T> (&d)[2][N]) const {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      images_.template differences<Phase, Again>(at_, slot_, m, r, d[m]);
      if constexpr (kWeighted) {
        NEC_UNROLL
        for (Vec<Dim, T>& voxel : d[m]) {
          NEC_UNROLL
          for (int k = 0; k < Dim - 1; ++k) voxel.v[k] *= a_.axis_scale[k];
        }
      }
    }
  }

  // Reads the maps of the general variant besides the mask, when they are needed and not ahead: eps
  // of both images in a row of the plane, in differences along the last axis, and the upstream
  // gradient times the weights, which have the mask already. False where an eps is outside of
  // Range<T>.
  NEC_DEVICE bool load_maps(int z, Strip<T> (&eps)[2], Strip<T>& weight) const {
    bool in_range = true;
    if (at_.y >= a_.height) return in_range;
    const auto load = [&](const Array& map) {
      return load_strip<T>(map, at_.row_of(map, z, 0), at_.x, a_.width);
    };
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      if (!a_.eps_map[m]) continue;
      eps[m] = a_.eps_scale * load(a_.eps_map[m]);
      NEC_UNROLL
      for (T& value : eps[m].v) {
        value = checked_eps(value);
        in_range &= eps_in_range(value);
      }
    }
    if (a_.upstream) weight *= load(a_.upstream);
    return in_range;
  }

  // Adds the voxels that are the thread's to the sum, and writes what is asked for of each.
  NEC_DEVICE void reduce(int z, int r, const Cotangents<Dim, T>& voxels, const Strip<T>& weight,
                         const Strip<T>& values) {
    T sum = 0;
    NEC_UNROLL
    for (const T value : values.v) sum += value;
    sum_ += double(sum);
    if constexpr (kGeneral) {
      store_map(a_.loss_map, z, r,
                [&](int i) { return a_.loss.voxel(a_.weight * weight.v[i], voxels.value.v[i]); });
      const T scale = T(a_.gradient_scale) * a_.eps_scale;
      NEC_UNROLL
      for (int m = 0; m < 2; ++m)
        store_map(a_.by_eps[m], z, r,
                  [&](int i) { return scale * weight.v[i] * voxels.by_eps[m].v[i]; });
    }
  }

  // Writes a value for each voxel of the strip that is the thread's, where a map is asked for.
  template <typename F>
  NEC_DEVICE void store_map(const Array& map, int z, int r, const F& value_at) const {
    if (!map) return;
    const Strip<T> strip = Strip<T>::of(value_at);
    char* const row = at_.row_of(map, z, r);
    with_image_type<T>(map.dtype, [&](auto element) {
      store_strip_of<decltype(element)>(map, row, at_.x, at_.low(), at_.high(), strip);
    });
  }

  // Where a strip ends with the row, or a part of it is not summed: the cotangents go on, and the
  // values do not count.
  NEC_DEVICE void mend(Cotangents<Dim, T>& voxels, Strip<T>& values) const {
    NEC_UNROLL
    for (int i = 0; i < N; ++i) {
      if (at_.x + i < at_.low() || at_.x + i >= at_.high()) values.v[i] = 0;
      if (i == 0 || at_.x + i != a_.width) continue;
      NEC_UNROLL
      for (Strip<T>(&by)[Dim] : voxels.by) {
        NEC_UNROLL
        for (int k = 0; k < Dim; ++k)
          by[k].v[i] = by[k].v[i == 0 ? 0 : i - 1] * (k < Dim - 1 ? T(1) : T(S::continuation[1]));
      }
    }
  }
};

// A march as a kernel. Shared memory: a cell for each thread, and for rows that no thread stands
// for.
template <class M>
struct Sweep {
  static constexpr int kMostThreads = M::kMostThreads;
  SweepArguments<typename M::T> arguments;

  NEC_DEVICE void run(void* shared) const {
    // Only a kernel of ours waits for what this one writes: the total of its partial sums.
    if (arguments.partials) let_next_kernel_start();
    double sum = M(arguments, shared).run();
    if (!arguments.partials) return;
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) arguments.partials[blockIdx.x] = sum;
  }
};

}  // namespace nec::cuda
