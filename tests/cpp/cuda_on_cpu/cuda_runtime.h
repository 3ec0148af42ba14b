// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// What csrc/cuda needs of CUDA, on the CPU: the very files of the kernels, compiled by a C++
// compiler with this header in place of CUDA's own. The threads of a block are fibers that take
// turns: each runs up to the next __syncthreads, and every other time in the opposite order, so
// that a barrier that is missing shows in the results. The thread sanitizer, which knows fibers,
// sees them as threads with barriers and nothing else between them. Shared memory is allocated for
// each launch with the size that it asks for, for the address sanitizer, and is full of NaN before
// each block. A copy that does not wait overwrites its destination with NaN at once, and brings its
// bytes when it is waited for and not before. What csrc/math has for a GPU alone, approximate
// square roots say, is not in use here.
#pragma once

#include <ucontext.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

// What the thread sanitizer has to be told of fibers.
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define NEC_TELL_SANITIZER(call) call
#else
#define NEC_TELL_SANITIZER(call)
#endif

#define CUDART_VERSION 13000
#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(...)

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

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

// The compute capability of the PTX that the kernels are translated from (ptx/translate.py), if so.
#if defined(NEC_PTX)
constexpr int kPtx = NEC_PTX;
#else
constexpr int kPtx = 90;
#endif

// The GPU that is imitated. Few threads per block make many tiles of a small image.
struct FakeDevice {
  int multiprocessors = 3;
  int shared_bytes = 24 * 1024;
  int major = 9;  // compute capability
  int driver = 13000;
  int ptx = kPtx;        // that a kernel claims to be compiled from
  int leftovers = 0xff;  // in every byte of shared memory
};
inline FakeDevice fake_device;

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor,
  cudaDevAttrReservedSharedMemoryPerBlock
};
// What is asked of a device once must not outlive a change of the one that is imitated: each is a
// device of its own.
inline cudaError_t cudaGetDevice(int* device) {
  static std::map<std::array<int, 5>, int> known;
  const FakeDevice& f = fake_device;
  const std::array<int, 5> facts{f.multiprocessors, f.shared_bytes, f.major, f.driver, f.ptx};
  *device = known.emplace(facts, int(known.size())).first->second;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = fake_device.driver;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const int values[] = {fake_device.multiprocessors, fake_device.shared_bytes, fake_device.major,
                        fake_device.shared_bytes + 1024, 1024};
  *value = values[attribute];
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion;
};
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = fake_device.ptx;
  return cudaSuccess;
}
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return cudaSuccess;
}

namespace cuda_on_cpu {

// A copy that is on its way.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  int group;  // of its thread
};

struct Fiber {
  void* thread = nullptr;  // as the thread sanitizer knows it
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  std::vector<Copy> copies;
  int group = 0;  // of the copies to come
};

// The launch that runs, and the fibers, which all launches share.
inline std::function<void()> grid;  // the way of a thread through all blocks
inline char* shared_memory;
inline Fiber host, fibers[1024];
inline unsigned running, arrived, ended;
inline bool barriers[2], backwards;
inline unsigned barriers_passed;  // by all threads, of all launches

// Not seen by the sanitizer: here the fibers share what threads would not.
__attribute__((noinline, no_sanitize_thread)) inline void resume(Fiber& from, Fiber& to,
                                                                 unsigned index) {
  threadIdx.x = running = index;
  NEC_TELL_SANITIZER(__tsan_switch_to_fiber(to.thread, 1));  // 1: orders nothing
  swapcontext(&from.context, &to.context);
}

// Hands over to the next thread. The last one goes on, and the others after it.
__attribute__((noinline, no_sanitize_thread)) inline void wait(bool at_the_end) {
  [[maybe_unused]] void* const barrier = &barriers[backwards];
  NEC_TELL_SANITIZER(__tsan_release(barrier));
  Fiber& self = fibers[running];
  ended += at_the_end;
  if (++arrived < blockDim.x) {
    const unsigned next = backwards ? running - 1 : running + 1;
    resume(self, fibers[next], next);
  } else if (ended == blockDim.x) {
    resume(self, host, 0);
  } else if (ended) {
    std::fprintf(stderr, "threads have ended that others of their block wait for\n");
    std::abort();
  } else {
    arrived = 0;
    ++barriers_passed;
    backwards = !backwards;
  }
  NEC_TELL_SANITIZER(__tsan_acquire(barrier));
}

inline void live() {
  for (;;) {
    NEC_TELL_SANITIZER(__tsan_acquire(&host));
    grid();
    wait(true);
  }
}

__attribute__((noinline)) inline void begin_life(Fiber& fiber) {
  constexpr size_t kStackBytes = 256 * 1024;
  fiber.stack.reset(new char[kStackBytes]);
  NEC_TELL_SANITIZER(fiber.thread = __tsan_create_fiber(0));
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  makecontext(&fiber.context, live, 0);
}

__attribute__((noinline, no_sanitize_thread)) inline void run_grid() {
  for (unsigned index = 0; index < blockDim.x; ++index) {
    if (!fibers[index].stack) begin_life(fibers[index]);
  }
  arrived = ended = 0;
  backwards = false;
  NEC_TELL_SANITIZER(host.thread = __tsan_get_current_fiber());
  NEC_TELL_SANITIZER(__tsan_release(&host));
  resume(host, fibers[0], 0);
  NEC_TELL_SANITIZER(__tsan_acquire(&barriers[0]));
  NEC_TELL_SANITIZER(__tsan_acquire(&barriers[1]));
}

inline void begin_copy(void* to, const void* from, size_t bytes) {
  std::memset(to, 0xff, bytes);
  Fiber& self = fibers[threadIdx.x];
  self.copies.push_back({to, from, bytes, self.group});
}

// Ends all copies but those of the last groups, after a call of f for each.
template <typename F>
void end_copies(int pending, const F& f) {
  Fiber& self = fibers[threadIdx.x];
  auto copy = self.copies.begin();
  for (; copy != self.copies.end() && copy->group < self.group - pending; ++copy) {
    f(*copy);
    std::memcpy(copy->to, copy->from, copy->bytes);
  }
  self.copies.erase(self.copies.begin(), copy);
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::wait(false); }
inline void __syncwarp() {}  // orders nothing that the kernels rely on

namespace nec::cuda {
inline void* shared_memory() { return cuda_on_cpu::shared_memory; }

template <int Bytes>
void copy_async(void* shared, const void* global) {
  if (reinterpret_cast<size_t>(shared) % Bytes || reinterpret_cast<size_t>(global) % Bytes) {
    std::fprintf(stderr, "a copy is not aligned to its size\n");
    std::abort();
  }
  cuda_on_cpu::begin_copy(shared, global, Bytes);
}
inline void commit_copies() { ++cuda_on_cpu::fibers[threadIdx.x].group; }
template <int Pending>
void wait_for_copies() {
  cuda_on_cpu::end_copies(Pending, [](const cuda_on_cpu::Copy&) {});
}
}  // namespace nec::cuda

#if defined(NEC_PTX)
#include "ptx/machine.h"
#endif

template <typename Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Arguments),
                               const Arguments& arguments) {
  if (config->dynamicSmemBytes > size_t(fake_device.shared_bytes)) return cudaErrorInvalidValue;
  early_starts += int(config->numAttrs);
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  // Not rounded up to whole vectors of anything: one byte beyond the end is an error.
  const size_t bytes = config->dynamicSmemBytes;
  cuda_on_cpu::shared_memory = static_cast<char*>(::operator new(bytes, std::align_val_t(16)));
#if defined(NEC_PTX)
  ptx::begin(bytes, config->numAttrs > 0);
  const ptx::Translated translated = ptx::find(reinterpret_cast<void*>(kernel));
  const auto run = [&] { translated(reinterpret_cast<const char*>(&arguments)); };
#else
  const auto run = [&] { kernel(arguments); };
#endif
  cuda_on_cpu::grid = [&] {
    for (unsigned block = 0; block < gridDim.x; ++block) {
      __syncthreads();
      if (threadIdx.x == 0) {
        blockIdx.x = block;
        std::memset(cuda_on_cpu::shared_memory, fake_device.leftovers, bytes);
      }
      __syncthreads();
      run();
      if (!cuda_on_cpu::fibers[threadIdx.x].copies.empty()) {
        std::fprintf(stderr, "a thread has ended before its copies\n");
        std::abort();
      }
    }
  };
  cuda_on_cpu::run_grid();
  ::operator delete(cuda_on_cpu::shared_memory, std::align_val_t(16));
  return cudaSuccess;
}
