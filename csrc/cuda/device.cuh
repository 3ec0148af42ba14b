// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Instructions of a GPU that the kernels need, and their stand-ins in the tests, which run the
// kernels on the CPU.
#pragma once

#include "../math/common.h"

#if defined(__CUDACC__)
#define NEC_DEVICE __device__ __forceinline__
#else
#define NEC_DEVICE inline
#endif

namespace nec::cuda {

constexpr int kWarp = 32;   // threads, which run in step
constexpr int kLine = 128;  // bytes of memory that are cached together

NEC_DEVICE int minimum(int a, int b) { return a < b ? a : b; }
NEC_DEVICE int clamp(int i, int low, int high) { return i < low ? low : i > high ? high : i; }

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

// Asks for a line that will be read later.
NEC_DEVICE void prefetch(const char* address) {
#if defined(__CUDA_ARCH__)
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  __builtin_prefetch(address);
#endif
}

}  // namespace nec::cuda
