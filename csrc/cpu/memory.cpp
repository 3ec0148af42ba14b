// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "memory.h"

#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace nec::cpu {

Scratch& thread_scratch() {
  thread_local Scratch scratch;
  return scratch;
}

#if defined(__SSE2__)
void stream_copy(const void* source, size_t bytes, void* destination) {
  constexpr size_t kVector = sizeof(__m128i);
  const char* src = static_cast<const char*>(source);
  char* dst = static_cast<char*>(destination);
  const size_t misaligned = reinterpret_cast<uintptr_t>(dst) % kVector;
  const size_t head = misaligned == 0 ? 0 : kVector - misaligned;
  if (head >= bytes) {
    std::memcpy(dst, src, bytes);
    return;
  }
  std::memcpy(dst, src, head);
  size_t i = head;
  for (; i + kVector <= bytes; i += kVector) {
    const __m128i vector = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i), vector);
  }
  std::memcpy(dst + i, src + i, bytes - i);
}

void stream_fence() { _mm_sfence(); }
#else
void stream_copy(const void* source, size_t bytes, void* destination) {
  std::memcpy(destination, source, bytes);
}

void stream_fence() {}
#endif

}  // namespace nec::cpu
