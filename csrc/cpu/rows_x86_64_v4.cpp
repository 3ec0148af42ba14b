// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The row loops for x86-64-v4 (AVX-512). The pragma stands in for a per-file compiler flag; the
// standard headers come before it, so that none of their inline functions is compiled for this
// instruction set.

#include "capability.h"

#if NEC_X86_64_LEVELS
#include <cfloat>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("arch=x86-64-v4"))), apply_to = function)
#else
#pragma GCC target("arch=x86-64-v4,prefer-vector-width=512")
#endif
#define NEC_LANE_BYTES 64
#include "row_kernels.inl"

namespace nec::cpu {

RowKernels<float> row_kernels_x86_64_v4(float) { return make_row_kernels<float>(); }
RowKernels<double> row_kernels_x86_64_v4(double) { return make_row_kernels<double>(); }

}  // namespace nec::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
