// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops for x86-64-v3 (AVX2 and FMA). The pragma stands in for a per-file compiler flag;
// the standard headers come before it, so that none of their inline functions is compiled for this
// instruction set.

#include "capability.h"

#if NEC_X86_64_LEVELS
#include <cfloat>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v3"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v3")
#endif
#define NEC_LANE_BYTES 32
#include "row_kernels.inl"

namespace nec::cpu {

RowKernels<float> row_kernels_x86_64_v3(float) { return make_row_kernels<float>(); }
RowKernels<double> row_kernels_x86_64_v3(double) { return make_row_kernels<double>(); }

}  // namespace nec::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
