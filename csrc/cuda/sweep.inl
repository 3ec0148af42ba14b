// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The sweeps of one arithmetic type and dimension. Included by the files that compile them, which
// are several so that a build can use several processors.

#include "launch.cuh"

namespace nec::cuda {

template <class Sweep>
Tiling tiling_on_this_device(const Problem& problem) {
  int device = 0, multiprocessors = 0, shared_bytes = 0;
  check(cudaGetDevice(&device), "no current device");
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "multiprocessors of the device");
  check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "shared memory of the device");
  return make_sweep_tiling<Sweep>(problem, multiprocessors, shared_bytes);
}

template <typename T, int Dim>
int64_t sweep_blocks(const Problem& problem) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    return tiling_on_this_device<typename decltype(chosen)::type>(problem).blocks;
  });
}

template <typename T, int Dim>
int64_t launch_sweep(const Problem& problem, double gradient_scale, const double* factor,
                     double* partials, Stream stream) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    using Sweep = typename decltype(chosen)::type;
    const Tiling tiling = tiling_on_this_device<Sweep>(problem);
    auto arguments = make_sweep_arguments<T>(problem, tiling);
    arguments.gradient_scale = gradient_scale;
    arguments.factor = factor;
    arguments.partials = partials;
    launch<Sweep, Sweep::kMostThreads>(arguments, tiling.blocks, tiling.threads(),
                                       Sweep::shared_bytes(tiling.threads()), stream,
                                       "launch of the NGF sweep failed");
    return tiling.blocks;
  });
}

}  // namespace nec::cuda
