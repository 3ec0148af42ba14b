// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors

#include "capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if NEC_X86_64_LEVELS && defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#endif

namespace nec::cpu {
namespace {

struct Capability {
  const char* name;
  bool runs_here;
  RowKernels<float> (*float_rows)(float);
  RowKernels<double> (*double_rows)(double);
};

#if NEC_X86_64_LEVELS && defined(_WIN32)  // where __builtin_cpu_supports has no library
bool has_v3() { return IsProcessorFeaturePresent(PF_AVX2_INSTRUCTIONS_AVAILABLE); }
bool has_v4() { return IsProcessorFeaturePresent(PF_AVX512F_INSTRUCTIONS_AVAILABLE); }
#elif NEC_X86_64_LEVELS
bool has_v3() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool has_v4() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

// Worst first. `runs_here` asks for the members of each level that the others come with.
const Capability kCapabilities[] = {
    {"baseline", true, row_kernels_baseline, row_kernels_baseline},
#if NEC_X86_64_LEVELS
    {"x86-64-v3", has_v3(), row_kernels_x86_64_v3, row_kernels_x86_64_v3},
    {"x86-64-v4", has_v4(), row_kernels_x86_64_v4, row_kernels_x86_64_v4},
#endif
};

const Capability& choose() {
  const char* wanted = std::getenv("NEC_EXT_CPU_CAPABILITY");
  const Capability* best = nullptr;
  for (const Capability& c : kCapabilities) {
    if (c.runs_here && (!wanted || std::string(wanted) == c.name)) best = &c;
  }
  if (!best) {
    throw std::runtime_error(
        std::string("NEC_EXT_CPU_CAPABILITY is \"") + wanted +
        "\", which is not compiled in or does not run on this processor; compiled: " +
        compiled_capabilities());
  }
  return *best;
}

const Capability& chosen() {
  static const Capability& capability = choose();
  return capability;
}

}  // namespace

const char* compiled_capabilities() {
  static const std::string names = [] {
    std::string joined;
    for (const Capability& c : kCapabilities)
      joined += (joined.empty() ? "" : " ") + std::string(c.name);
    return joined;
  }();
  return names.c_str();
}

const char* chosen_capability() { return chosen().name; }

template <>
const RowKernels<float>& row_kernels<float>() {
  static const RowKernels<float> rows = chosen().float_rows(0.0f);
  return rows;
}

template <>
const RowKernels<double>& row_kernels<double>() {
  static const RowKernels<double> rows = chosen().double_rows(0.0);
  return rows;
}

}  // namespace nec::cpu
