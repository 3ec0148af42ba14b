// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What csrc/cuda needs of CUDA, on the CPU: the very files of the kernels, compiled by a C++
// compiler with this header in place of CUDA's own. A thread of a block is a thread of the system
// and __syncthreads a barrier for them, so that the thread sanitizer sees what a GPU would do.
// Shared memory is allocated for each launch with the size that it asks for, for the address
// sanitizer, and is full of NaN before each block. What csrc/math has for a GPU alone, approximate
// square roots say, is not in use here.
#pragma once

#include <pthread.h>

#include <array>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline thread_local dim3 threadIdx;
inline dim3 blockIdx, blockDim, gridDim;

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue, cudaErrorNoKernelImageForDevice };
inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }

using cudaStream_t = void*;
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};
// Kernels that were allowed to begin before the one before them had ended.
inline int early_starts = 0;
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

// The GPU that is imitated. Few threads per block make many tiles of a small image.
struct FakeDevice {
  int multiprocessors = 3;
  int shared_bytes = 24 * 1024;
  int major = 9;  // compute capability
  int driver = 13000;
  int leftovers = 0xff;  // in every byte of shared memory
};
inline FakeDevice fake_device;

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor
};
// What is asked of a device once must not outlive a change of the one that is imitated: each is a
// device of its own.
inline cudaError_t cudaGetDevice(int* device) {
  static std::map<std::array<int, 4>, int> known;
  const FakeDevice& f = fake_device;
  const std::array<int, 4> facts{f.multiprocessors, f.shared_bytes, f.major, f.driver};
  *device = known.emplace(facts, int(known.size())).first->second;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = fake_device.driver;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int values[] = {fake_device.multiprocessors, fake_device.shared_bytes, fake_device.major};
  *value = values[attribute];
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion;
};
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = 10 * fake_device.major;
  return cudaSuccess;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace cuda_on_cpu {

inline char* shared_memory;
inline pthread_barrier_t barrier;

}  // namespace cuda_on_cpu

inline void __syncthreads() { pthread_barrier_wait(&cuda_on_cpu::barrier); }
inline void __syncwarp() {}  // orders nothing that the kernels rely on

namespace nec::cuda {
inline void* shared_memory() { return cuda_on_cpu::shared_memory; }
}  // namespace nec::cuda

template <typename Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Arguments),
                               const Arguments& arguments) {
  if (config->dynamicSmemBytes > size_t(fake_device.shared_bytes)) return cudaErrorInvalidValue;
  early_starts += int(config->numAttrs);
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  pthread_barrier_init(&cuda_on_cpu::barrier, nullptr, blockDim.x);
  // Not rounded up to whole vectors of anything: one byte beyond the end is an error.
  const size_t bytes = config->dynamicSmemBytes;
  cuda_on_cpu::shared_memory = static_cast<char*>(::operator new(bytes, std::align_val_t(16)));
  const auto thread = [&](unsigned index) {
    threadIdx.x = index;
    for (unsigned block = 0; block < gridDim.x; ++block) {
      __syncthreads();
      if (index == 0) {
        blockIdx.x = block;
        std::memset(cuda_on_cpu::shared_memory, fake_device.leftovers, bytes);
      }
      __syncthreads();
      kernel(arguments);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < blockDim.x; ++index) threads.emplace_back(thread, index);
  for (std::thread& each : threads) each.join();
  ::operator delete(cuda_on_cpu::shared_memory, std::align_val_t(16));
  pthread_barrier_destroy(&cuda_on_cpu::barrier);
  return cudaSuccess;
}
