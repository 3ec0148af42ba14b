// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What every header of csrc/math needs: one way to mark a function that runs on host and device.
// Nothing in this folder includes torch, so that the C++ tests build in seconds.
#pragma once

#include <cstdint>

// Forced inlining is more than a wish here: the CPU rows are compiled once per instruction set, and
// an out-of-line copy of a template could be shared by the linker across them, which would put an
// AVX-512 instruction on the path of a processor that has none.
#if defined(__CUDACC__)
#define NEC_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define NEC_INLINE inline __attribute__((always_inline))
#else
#define NEC_INLINE inline
#endif

// The same for a lambda, written after its parameters: a loop with a call in it is not vectorized.
#if defined(__GNUC__) && !defined(__CUDACC__)
#define NEC_INLINE_LAMBDA __attribute__((always_inline))
#else
#define NEC_INLINE_LAMBDA
#endif

#if defined(__CUDACC__)
#define NEC_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define NEC_UNROLL _Pragma("GCC unroll 4")
#else
#define NEC_UNROLL
#endif

namespace nec {

// Difference operators. The numbers are the ones that travel through the op schema.
enum class Operator : int64_t { central = 0, forward = 1, sobel = 2 };

// How eps enters the length of a gradient. The numbers travel through the op schema.
enum class EpsMode : int64_t { additive = 0, quadrature = 1 };

// Which of the two gradients a sweep computes.
enum class Gradients : int { none = 0, input = 1, both = 2 };

// A gradient vector. Axes are in memory order: the last one is the row (x).
template <int Dim, typename T>
struct Vec {
  T v[Dim];
};

}  // namespace nec
