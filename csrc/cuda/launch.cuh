// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// How any of the kernels is launched, and what happens if it cannot be.
#pragma once

#include <cuda_runtime.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "launch.h"
#include "sweep_setup.h"

namespace nec::cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) {
    std::string message = std::string("nec_ext: ") + what + ": " + cudaGetErrorString(error);
#if defined(NEC_EXT_CUDA_ARCHITECTURES)
    if (error == cudaErrorNoKernelImageForDevice)
      message += "; the kernels are built for compute capability " NEC_EXT_CUDA_ARCHITECTURES;
#endif
    throw std::runtime_error(message);
  }
}

#if defined(__CUDACC__)  // the tests, which run the kernels on the CPU, bring their own
NEC_DEVICE void* shared_memory() {
  extern __shared__ __align__(16) double memory[];
  return memory;
}
#endif

// A class with Arguments and run(arguments, shared memory), as a kernel.
template <class Body, int Threads>
__global__ __launch_bounds__(Threads, 1) void kernel(const __grid_constant__
                                                     typename Body::Arguments arguments) {
  Body::run(arguments, shared_memory());
}

// Lets a kernel use that much shared memory, which above 48 KB it has to be asked for. Always the
// same number for a kernel and a device: another thread may be about to launch it.
template <class Body, int Threads>
void allow_shared(int64_t bytes, const char* name) {
  check(cudaFuncSetAttribute(kernel<Body, Threads>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int(bytes)),
        name);
}

inline int attribute_of_device(cudaDeviceAttr attribute, const char* name) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "no current device");
  check(cudaDeviceGetAttribute(&value, attribute, device), name);
  return value;
}

// When a kernel begins.
enum class Start {
  in_order,  // after everything before it in the stream
  early,     // as soon as all blocks of the kernel before it run; its body waits for their results
};

template <class Body, int Threads>
void launch(const typename Body::Arguments& arguments, int64_t blocks, int threads,
            int64_t shared_bytes, Stream stream, const char* name, Start start = Start::in_order) {
  if (blocks > std::numeric_limits<int>::max())
    throw std::invalid_argument("nec_ext: too many images for one launch");
  cudaLaunchConfig_t config{};
  config.gridDim.x = unsigned(blocks);
  config.blockDim.x = unsigned(threads);
  config.dynamicSmemBytes = size_t(shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &early;
  // GPUs before Hopper cannot.
  if (start == Start::early &&
      attribute_of_device(cudaDevAttrComputeCapabilityMajor, "compute capability") >= 9)
    config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel<Body, Threads>, arguments), name);
}

// Compiled in files of their own. Writes partial sums where `partials` is not null, and returns how
// many there are.
template <typename T, int Dim>
int64_t launch_sweep(const Problem& problem, double gradient_scale, const double* factor,
                     double* partials, Stream stream);

// How many partial sums that will be.
template <typename T, int Dim>
int64_t sweep_blocks(const Problem& problem);

}  // namespace nec::cuda
