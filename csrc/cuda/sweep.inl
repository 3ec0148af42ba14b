// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The sweeps of one arithmetic type and dimension. Included by the files that compile them, which
// are several so that a build can use several processors.

#include "launch.cuh"

namespace nec::cuda {

struct DeviceLimits {
  int multiprocessors, shared_bytes;  // of a block
};

inline DeviceLimits limits_of_device() {
  static PerDevice<DeviceLimits> limits;
  return limits.get([] {
    return DeviceLimits{
        attribute_of_device(cudaDevAttrMultiProcessorCount, "multiprocessors of the device"),
        attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin,
                            "shared memory of the device")};
  });
}

template <class Sweep>
Tiling tiling_on(const DeviceLimits& limits, const Problem& problem) {
  return make_sweep_tiling<Sweep>(problem, limits.multiprocessors, limits.shared_bytes);
}

template <typename T, int Dim>
int64_t sweep_blocks(const Problem& problem) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    return tiling_on<typename decltype(chosen)::type>(limits_of_device(), problem).blocks;
  });
}

template <typename T, int Dim>
int64_t launch_sweep(const Problem& problem, double gradient_scale, const double* factor,
                     double* partials, Stream stream) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    using Sweep = typename decltype(chosen)::type;
    constexpr int most_threads = Sweep::kMostThreads;
    const char* name = "launch of the NGF sweep failed";
    const DeviceLimits limits = limits_of_device();
    const Tiling tiling = tiling_on<Sweep>(limits, problem);
    auto arguments = make_sweep_arguments<T>(problem, tiling);
    arguments.gradient_scale = gradient_scale;
    arguments.factor = factor;
    arguments.partials = partials;
    const int64_t most_shared = Sweep::shared_bytes(Sweep::most_threads(limits.shared_bytes));
    allow_shared<Sweep, most_threads>(most_shared, name);
    launch<Sweep, most_threads>(arguments, tiling.blocks, tiling.threads(),
                                Sweep::shared_bytes(tiling.threads()), stream, name);
    return tiling.blocks;
  });
}

}  // namespace nec::cuda
