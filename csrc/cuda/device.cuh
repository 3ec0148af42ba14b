// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Instructions of a GPU that the kernels need, and their stand-ins in the tests, which run the
// kernels on the CPU.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../math/common.h"

#if defined(__CUDACC__)
#define NEC_DEVICE __device__ __forceinline__
#else
#define NEC_DEVICE inline
#endif

namespace nec::cuda {

constexpr int kWarp = 32;  // threads, which run in step

NEC_DEVICE int minimum(int a, int b) { return a < b ? a : b; }
NEC_DEVICE int maximum(int a, int b) { return a > b ? a : b; }

// Keeps an int or a float in a register. The compiler does not see where it comes from, and so
// cannot compute it again in every step of a loop. `HasRoom`: else registers would be spilled.
template <bool HasRoom, typename T>
NEC_DEVICE T kept(T number) {
#if defined(__CUDA_ARCH__)
  if constexpr (HasRoom && std::is_same_v<T, int>) asm volatile("" : "+r"(number));
  if constexpr (HasRoom && std::is_same_v<T, float>) asm volatile("" : "+f"(number));
#endif
  return number;
}

// The small kernel after a large one is launched while that still runs, where a GPU can do so. The
// large one says at its start that it may, the small one waits before it reads anything.
NEC_DEVICE void let_next_kernel_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
NEC_DEVICE void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

#if defined(__CUDACC__)  // the tests, which run the kernels on the CPU, bring their own
// Copies 4, 8 or 16 bytes, aligned to their size, into shared memory, and does not wait for them.
// GPUs before Ampere wait.
template <int Bytes>
NEC_DEVICE void copy_async(void* shared, const void* global) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned to = unsigned(__cvta_generic_to_shared(shared));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(Bytes)
                 : "memory");
  }
#else
  using Bits =
      std::conditional_t<Bytes == 4, uint32_t, std::conditional_t<Bytes == 8, uint2, uint4>>;
  *static_cast<Bits*>(shared) = *static_cast<const Bits*>(global);
#endif
}

// Makes one group of the thread's copies since the last one.
NEC_DEVICE void commit_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until no more than `Pending` of the thread's groups are on their way: the latest ones.
template <int Pending>
NEC_DEVICE void wait_for_copies() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}
#endif

}  // namespace nec::cuda
