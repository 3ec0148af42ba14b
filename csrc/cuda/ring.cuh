// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The ring: some planes of both images and of the mask in shared memory, of which all but three are
// still on their way. No register waits for memory.
//
//   slots     | z - 1 |   z   | z + 1 |  ...  | z + slots - 2 |
//               free    looked at         on their way            and z + slots - 1 is requested
//
// Whole strips of contiguous rows are copied as they are, each by its thread, and converted there
// where their type is another one. Other rows are copied element by element, along the row, so that
// neighbouring threads read neighbouring elements: the ring holds strips all the same, which end
// with copies of the last element. At the border of the image a row or a plane is copied twice.
#pragma once

#include "cells.cuh"

namespace nec::cuda {

template <typename T, int Dim, class Cells, int R, bool Masked>
class Ring {
  static constexpr int N = Strip<T>::size;
  using Place = cuda::Place<Dim, R>;

 public:
  // `steps`: of the march that look at images.
  NEC_DEVICE Ring(const SweepArguments<T>& a, const Place& at, const Cells& cells, int steps)
      : a_(a), at_(at), cells_(cells), next_(at.z - 1), planes_(steps + 2) {
    NEC_UNROLL
    for (int m = 0; m < kSources; ++m) {
      const Source& source = a.source[m];
      const Array& array = source.array;
      rows_[m] = array.row(at.sample, at.channel, next_ < 0 ? 0 : next_, minimum(at.y, a.height - 1));
      if (source.strip_bytes > 0) rows_[m] += minimum(at.x, a.width - N) * array.stride[kAxes - 1];
    }
  }

  NEC_DEVICE int first_slot() const { return Cells::kFirstSlot; }
  NEC_DEVICE int slot_after(int slot) const {
    return slot == last_slot() ? first_slot() : slot + a_.slot_bytes;
  }
  NEC_DEVICE int slot_before(int slot) const {
    return slot == first_slot() ? last_slot() : slot - a_.slot_bytes;
  }

  // Requests the first planes, of which two are then there.
  NEC_DEVICE void start() {
    int slot = first_slot();
    for (int k = 0; k < a_.tiling.slots; ++k, slot += a_.slot_bytes) request(slot);
    wait_for_all_but(a_.tiling.slots - 2);
    land(first_slot());
    land(first_slot() + a_.slot_bytes);
    __syncthreads();
  }

  // Waits for the plane in a slot, the oldest that is on its way, and for the other threads. Then
  // the one before the one before it is looked at by nobody.
  NEC_DEVICE void arrive(int slot) {
    wait_for_all_but(a_.tiling.slots - 3);
    land(slot);
    __syncthreads();
  }

  // Requests the next plane, if one is needed.
  NEC_DEVICE void request(int slot) {
    if (planes_ > 0) {
      NEC_UNROLL
      for (int m = 0; m < kSources; ++m)
        if (m < 2 || a_.source[m].array) copy(slot, m);
    }
    --planes_;
    if (next_ >= 0 && next_ < a_.depth - 1) {
      NEC_UNROLL
      for (int m = 0; m < kSources; ++m) rows_[m] += a_.source[m].array.stride[2];
    }
    ++next_;
    commit_copies();
  }

  // Nothing may be on its way into shared memory that is used for something else.
  NEC_DEVICE void finish() { wait_for_copies<0>(); }

  // The weights of the mask in row r of the plane in a slot; bad ones are NaN.
  NEC_DEVICE Strip<T> mask(int slot, int r) const {
    const Source& source = a_.source[2];
    const Strip<T>* const strip = cells_.strip(slot, 2, r);
    return checked_masks(source.converted
                             ? load_whole_strip<T>(source.array.dtype,
                                                   reinterpret_cast<const char*>(strip))
                             : *strip);
  }

 private:
  static constexpr int kSources = Masked ? 3 : 2;

  NEC_DEVICE int last_slot() const {
    return first_slot() + (a_.tiling.slots - 1) * a_.slot_bytes;
  }

  // Calls f(r, rows further in memory) for each row of an array that the thread copies.
  template <typename F>
  NEC_DEVICE void for_each_row(int m, const F& f) const {
    const int here = minimum(at_.y, a_.height - 1);
    NEC_UNROLL
    for (int r = 0; r < R; ++r) f(r, r == 0 ? 0 : minimum(at_.y + r, a_.height - 1) - here);
    if (Dim == 2 || m == 2) return;
    if (at_.first_row) f(-1, minimum(at_.y > 0 ? at_.y - 1 : 0, a_.height - 1) - here);
    if (at_.last_row) f(R, minimum(at_.y + R, a_.height - 1) - here);
  }

  NEC_DEVICE void copy(int slot, int m) const {
    const Source& source = a_.source[m];
    for_each_row(m, [&](int r, int further) {
      const char* const row = rows_[m] + further * source.array.stride[3];
      Strip<T>* const to = cells_.strip(slot, m, r);
      if (source.strip_bytes == 16) {
        copy_async<16>(to, row);
      } else if (source.strip_bytes == 8) {
        copy_async<8>(to, row);
      } else if (source.strip_bytes == 4) {
        copy_async<4>(to, row);
      } else {
        copy_elements(source.array, row, to);
      }
    });
  }

  NEC_DEVICE void copy_elements(const Array& array, const char* row, Strip<T>* strip) const {
    const bool same = array.dtype == (sizeof(T) == 4 ? DType::float32 : DType::float64);
    NEC_UNROLL
    for (int j = 0; j < N; ++j) {
      const int e = j * a_.tiling.strips + at_.strip;
      const int x = minimum(at_.x - at_.strip * N + e, a_.width - 1);
      const char* const from = row + x * array.stride[kAxes - 1];
      char* const to = cells_.element(strip, at_.strip, e);
      if (same) {
        copy_async<sizeof(T)>(to, from);
      } else {
        *reinterpret_cast<T*>(to) = load_element<T>(array.dtype, from);
      }
    }
  }

  // Converts what the thread has copied of the images. The mask is converted when it is read.
  NEC_DEVICE void land(int slot) const {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      const Source& source = a_.source[m];
      if (!source.converted) continue;
      for_each_row(m, [&](int r, int) {
        Strip<T>* const strip = cells_.strip(slot, m, r);
        *strip = load_whole_strip<T>(source.array.dtype, reinterpret_cast<const char*>(strip));
      });
    }
  }

  // How many groups may be on their way is part of an instruction.
  static NEC_DEVICE void wait_for_all_but(int pending) {
    switch (pending) {
      case 0: return wait_for_copies<0>();
      case 1: return wait_for_copies<1>();
      case 2: return wait_for_copies<2>();
      case 3: return wait_for_copies<3>();
      case 4: return wait_for_copies<4>();
      default: return wait_for_copies<5>();
    }
  }

  const SweepArguments<T>& a_;  // in constant memory
  const Place& at_;
  const Cells& cells_;
  const char* rows_[kSources];  // of the plane that is requested next: the strip, or x = 0
  int next_;                    // that plane, before the border is replicated
  int planes_;                  // that are still to be requested
};

}  // namespace nec::cuda
