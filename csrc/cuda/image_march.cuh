// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The images on the march: a thread's strips of the planes around it, from memory through registers
// into shared memory.
#pragma once

#include "shared_planes.cuh"
#include "sweep_place.cuh"

namespace nec::cuda {

// Planes of an image in shared memory at a time.
constexpr int ring_planes(int ahead) { return 2 + 2 * ahead; }

// `Ahead`: how many planes beyond the one at hand have to be in shared memory. `General`: of any
// dtype and layout, else of T and of rows of whole strips.
template <typename T, class Place, class Planes, int Ahead, bool General>
class ImageMarch {
 public:
  static constexpr int kRing = ring_planes(Ahead);

  // Planes up to `Ahead` after the first are put into shared memory, and the one after them is
  // requested.
  NEC_DEVICE void start(const SweepArguments<T>& a, const Place& at, const Planes& planes) {
    NEC_ROLLED
    for (int k = -1; k <= Ahead; ++k) {
      seek(a, at, at.z + k);
      fetch(a, at);
      arrive(a);
      publish(a, at, planes, k + Ahead + kRing);
    }
    seek(a, at, at.z + 1 + Ahead);
    fetch(a, at);
  }

  // Waits for the plane that has been requested.
  NEC_DEVICE void arrive(const SweepArguments<T>& a) {
    if constexpr (General) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) next[m] = arriving_[m].arrive(a.image[m].dtype);
    }
  }

  // Puts the plane that has arrived into shared memory and requests the next one.
  NEC_DEVICE void advance(const SweepArguments<T>& a, const Place& at, const Planes& planes,
                          int step) {
    publish(a, at, planes, step + 1 + 2 * Ahead);
    if (at.z + step + 2 + Ahead < a.depth) {
      NEC_UNROLL
      for (int m = 0; m < 2; ++m) rows_[m] += a.image[m].stride[2];
    }
    fetch(a, at);
  }

  // The index in shared memory of the plane `dz` planes from the one at hand.
  static NEC_DEVICE unsigned plane(unsigned image, unsigned step, int dz) {
    return (step + unsigned(dz + Ahead)) % kRing * 2 + image;
  }

  // Planes of both images: the last two that are in shared memory, and the one that is to be next.
  Strip<T> before[2], here[2] = {}, next[2];

 private:
  static constexpr int kStrip = Strip<T>::size;

  // Goes to plane z, the border replicated.
  NEC_DEVICE void seek(const SweepArguments<T>& a, const Place& at, int z) {
    const int y = clamp(at.y, 0, a.height - 1);
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      rows_[m] = a.image[m].row(at.sample, at.channel, clamp(z, 0, a.depth - 1), y);
      if constexpr (!General) rows_[m] += clamp(at.x, 0, a.width - kStrip) * int64_t(sizeof(T));
    }
  }

  NEC_DEVICE void fetch(const SweepArguments<T>& a, const Place& at) {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      if constexpr (General) {
        arriving_[m].request(a.image[m], rows_[m], at.x, a.width);
      } else {
        next[m] = *reinterpret_cast<const Strip<T>*>(rows_[m]);
      }
    }
  }

  NEC_DEVICE void publish(const SweepArguments<T>& a, const Place& at, const Planes& planes,
                          unsigned slot) {
    // A strip outside of the image has been read from the nearest one inside. Of it only the voxel
    // at the border is ever looked at.
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      before[m] = here[m];
      here[m] = next[m];
      const unsigned plane = slot % kRing * 2 + m;
      const T first = here[m].v[0], last = here[m].v[kStrip - 1];
      planes.strip(plane) = here[m];
      planes.first(plane) = at.x >= a.width ? last : first;
      planes.last(plane) = at.x < 0 ? first : last;
    }
  }

  const char* rows_[2];  // of the plane that has been requested
  Arriving<T> arriving_[2];
};

}  // namespace nec::cuda
