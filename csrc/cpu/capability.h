// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// Which instruction set the row loops use. Chosen once, at the first call: the best one that the
// processor has, or the one named by the environment variable NEC_EXT_CPU_CAPABILITY.
#pragma once

#include "row_kernels.h"

#if defined(__x86_64__)
#define NEC_X86_64_LEVELS 1
#else
#define NEC_X86_64_LEVELS 0
#endif

namespace nec::cpu {

// The argument only selects the element type. One function per file compiled.
RowKernels<float> row_kernels_baseline(float);
RowKernels<double> row_kernels_baseline(double);
RowKernels<float> row_kernels_x86_64_v3(float);
RowKernels<double> row_kernels_x86_64_v3(double);
RowKernels<float> row_kernels_x86_64_v4(float);
RowKernels<double> row_kernels_x86_64_v4(double);

// Names of all compiled instruction sets, worst first, separated by spaces.
const char* compiled_capabilities();
// The one in use. Throws std::runtime_error if the environment names one that cannot run here.
const char* chosen_capability();

}  // namespace nec::cpu
