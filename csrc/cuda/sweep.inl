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
void launch_sweep(const Plan& plan, const Problem& problem, double gradient_scale,
                  const double* factor, double* partials, Stream stream) {
  constexpr int most_threads = Sweep::kMostThreads;
  const char* name = "launch of the NGF sweep failed";
  auto arguments = make_sweep_arguments<typename Sweep::T>(problem, plan.tiling);
  arguments.gradient_scale = gradient_scale;
  arguments.factor = factor;
  arguments.partials = partials;
  const int64_t most = Sweep::most_threads(limits_of_device().shared_bytes);
  allow_shared<Sweep, most_threads>(Sweep::shared_bytes(most), name);
  launch<Sweep, most_threads>(arguments, plan.tiling.blocks, plan.tiling.threads(),
                              plan.shared_bytes, stream, name);
}

template <typename T, int Dim>
Plan plan_sweep(const Problem& problem) {
  return with_sweep<T, Dim>(problem, [&](auto chosen) {
    using Sweep = typename decltype(chosen)::type;
    const DeviceLimits limits = limits_of_device();
    Plan plan{};
    plan.tiling = make_sweep_tiling<Sweep>(problem, limits.multiprocessors, limits.shared_bytes);
    plan.shared_bytes = Sweep::shared_bytes(plan.tiling.threads());
    plan.launch = launch_sweep<Sweep>;
    return plan;
  });
}

}  // namespace nec::cuda
