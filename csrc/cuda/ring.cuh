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

 public:
  explicit NEC_DEVICE Ring(const Cells& at) : a_(at.a) {
    NEC_UNROLL
    for (int m = 0; m < kSources; ++m)
      plane_[m] = a_.source[m].array.row(at.sample, at.channel, at.z > 0 ? at.z - 1 : 0, 0);
    NEC_UNROLL
    for (int r = 0; r < R; ++r) offset_[r] = unsigned(offset(at, a_.source[0], r));
  }

  NEC_DEVICE int slot_after(int slot) const {
    return slot == a_.last_slot ? a_.first_slot : slot + a_.slot_bytes;
  }
  NEC_DEVICE int slot_before(int slot) const {
    return slot == a_.first_slot ? a_.last_slot : slot - a_.slot_bytes;
  }

  // Requests the first planes, of which two are then there.
  NEC_DEVICE void start(const Cells& at) {
    int slot = a_.first_slot;
    for (int k = 0; k < a_.tiling.slots; ++k, slot += a_.slot_bytes)
      request(at, slot, at.z - 1 + k);
    wait_for_all_but(a_.tiling.slots - 2);
    land(at, a_.first_slot);
    land(at, a_.first_slot + a_.slot_bytes);
    __syncthreads();  // single elements come by way of others
  }

  // Waits for the plane in a slot, the oldest that is on its way, and for the other threads. Then
  // the one before the one before it is looked at by nobody.
  NEC_DEVICE void arrive(const Cells& at, int slot) {
    wait_for_all_but(a_.tiling.slots - 3);
    land(at, slot);
    __syncthreads();
  }

  // Requests a plane, the one after that of the call before, if it is needed.
  NEC_DEVICE void request(const Cells& at, int slot, int plane) {
    if (plane <= at.end) {
      if (a_.image_bytes == 16) {
        copy_images<16>(at, slot);
      } else if (a_.image_bytes == 8) {
        copy_images<8>(at, slot);
      } else {
        NEC_ROLLED
        for (int m = 0; m < 2; ++m) copy_any<false>(at, slot, m);
      }
      if (Masked && a_.source[2].array) {
        const int bytes = a_.source[2].strip_bytes;
        NEC_UNROLL
        for (int r = 0; r < R; ++r) {
          if (bytes == 4) copy_row<4>(at, slot, kSources - 1, r);
          if (bytes == 16) copy_row<16>(at, slot, kSources - 1, r);
        }
        if (bytes != 4 && bytes != 16) copy_any<true>(at, slot, 2);
      }
    }
    // Beyond the border the first and the last one go on.
    if (plane >= 0 && plane < a_.depth - 1) {
      NEC_UNROLL
      for (int m = 0; m < kSources; ++m) plane_[m] += a_.source[m].array.stride[2];
    }
    commit_copies();
  }

  // The weights of the mask in row r of the plane in a slot; bad ones are NaN.
  NEC_DEVICE Strip<T> mask(const Cells& at, int slot, int r) const {
    const Strip<T>* const strip = at.image(slot, 2, r);
    return checked_masks(a_.source[2].converted ? load_strip_of<uint8_t, T>(strip) : *strip);
  }

 private:
  static constexpr int kSources = Masked ? 3 : 2;

  // The bytes from the start of a plane of an array to the thread's strip in row r, -1 to R, or to
  // x = 0 there.
  NEC_DEVICE int64_t offset(const Cells& at, const Source& source, int r) const {
    const int y = minimum(maximum(at.y + r, 0), a_.height - 1);
    const int x = source.strip_bytes > 0 ? minimum(at.x, a_.width - N) : 0;
    return y * source.array.stride[3] + x * source.array.stride[kAxes - 1];
  }

  template <int Bytes>
  NEC_DEVICE void copy_images(const Cells& at, int slot) const {
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      NEC_UNROLL
      for (int r = 0; r < R; ++r) copy_async<Bytes>(at.image(slot, m, r), plane_[m] + offset_[r]);
    }
    if (!at.is_first_row() && !at.is_last_row()) return;
    NEC_UNROLL
    for (int m = 0; m < 2; ++m) {
      if (at.is_first_row()) copy_row<Bytes>(at, slot, m, -1);
      if (at.is_last_row()) copy_row<Bytes>(at, slot, m, R);
    }
  }

  template <int Bytes>
  NEC_DEVICE void copy_row(const Cells& at, int slot, int m, int r) const {
    copy_async<Bytes>(at.image(slot, m, r), plane_[m] + offset(at, a_.source[m], r));
  }

  // Rows of any array, with as little code as possible: a thread's own, and of the images those
  // beside the block.
  template <bool IsMask>
  NEC_DEVICE void copy_any(const Cells& at, int slot, int m) const {
    const Source& source = a_.source[m];
    const char* const plane = IsMask ? plane_[kSources - 1] : m == 0 ? plane_[0] : plane_[1];
    const int first = !IsMask && at.is_first_row() ? -1 : 0;
    const int last = !IsMask && at.is_last_row() ? R : R - 1;
    NEC_ROLLED
    for (int r = first; r <= last; ++r) {
      const char* const row = plane + offset(at, source, r);
      Strip<T>* const to = at.image(slot, m, r);
      if (source.strip_bytes == 16) {
        copy_async<16>(to, row);
      } else if (source.strip_bytes == 8) {
        copy_async<8>(to, row);
      } else if (source.strip_bytes == 4) {
        copy_async<4>(to, row);
      } else {
        copy_elements(at, source.array, row, to);
      }
    }
  }

  NEC_DEVICE void copy_elements(const Cells& at, const Array& array, const char* row,
                                Strip<T>* strip) const {
    const auto from = [&](int j) {
      const int x = at.x + (j * a_.tiling.strips + at.column) - at.column * N;
      return row + minimum(x, a_.width - 1) * array.stride[kAxes - 1];
    };
    const auto to = [&](int j) { return at.element(strip, j * a_.tiling.strips + at.column); };
    const auto copy = [&](auto element) {
      const auto voxels = Strip<T>::of(
          [&](int j) { return load_as<T>(*reinterpret_cast<const decltype(element)*>(from(j))); });
      NEC_UNROLL
      for (int j = 0; j < N; ++j) *to(j) = voxels.v[j];
    };
    if (array.dtype == kType<T>) {
      NEC_UNROLL
      for (int j = 0; j < N; ++j) copy_async<sizeof(T)>(to(j), from(j));
    } else {
      with_type(array.dtype, copy);
    }
  }

  // Converts what the thread has copied of the images. The mask is converted when it is read.
  NEC_DEVICE void land(const Cells& at, int slot) const {
    if (!a_.converted) return;
    NEC_ROLLED
    for (int m = 0; m < 2; ++m) {
      const Source& source = a_.source[m];
      if (!source.converted) continue;
      with_type(source.array.dtype, [&](auto element) {
        const auto convert = [&](int r) {
          Strip<T>* const strip = at.image(slot, m, r);
          *strip = load_strip_of<decltype(element), T>(strip);
        };
        NEC_UNROLL
        for (int r = 0; r < R; ++r) convert(r);
        if (at.is_first_row()) convert(-1);
        if (at.is_last_row()) convert(R);
      });
    }
  }

  // Waits for one more where no instruction has that number: it is part of it.
  static NEC_DEVICE void wait_for_all_but(int pending) {
    if (Dim == 2 && pending >= 5) return wait_for_copies<5>();
    if (pending >= 3) return wait_for_copies<3>();
    if (pending >= 1) return wait_for_copies<1>();
    wait_for_copies<0>();
  }

  const SweepArguments<T>& a_;   // in constant memory
  const char* plane_[kSources];  // that is requested next
  unsigned offset_[R];           // of the thread's rows in a plane, in bytes
};

}  // namespace nec::cuda
