// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nec::cpu {

// Scratch memory of one thread, kept from call to call: fresh pages would cost more than a small
// image.
class Scratch {
 public:
  // Room for n elements of T, on a cache line. Valid until the next call.
  template <typename T>
  T* get(int64_t n) {
    bytes_.resize(std::max<size_t>(bytes_.size(), size_t(n) * sizeof(T) + 64));
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    return reinterpret_cast<T*>((address + 63) / 64 * 64);
  }

 private:
  std::vector<char> bytes_;
};

// Returns the scratch memory of the calling thread.
Scratch& thread_scratch();

// Copies to memory that will not be read again soon, past the caches where the processor can: a
// line that is written whole need not be read first. stream_fence() makes such writes visible to
// other threads.
void stream_copy(const void* source, size_t bytes, void* destination);
void stream_fence();

}  // namespace nec::cpu
