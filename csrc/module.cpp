// SPDX-License-Identifier: Apache-2.0
// Copyright (c) 2026 The nec_ext authors
//
// The Python module nec_ext._C: facts about this build. Tensors do not pass here; loading the
// module registers the ops with torch's dispatcher (ops/schema.cpp).

// The pybind11 of torch 2.10 refuses a build for the stable ABI, of which nothing is used here.
#undef TORCH_TARGET_VERSION
#include <pybind11/pybind11.h>

#include "cpu/capability.h"
#ifdef NEC_EXT_CUDA_ARCHITECTURES
#include "cuda/sweep.h"
#endif

namespace {

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#else
  return "unknown";
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Build facts of nec_ext; its ops are in torch.ops.nec_ext.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["compiler"] = compiler();
#ifdef NEC_EXT_CUDA_ARCHITECTURES
    info["cuda"] = nec::cuda::toolkit_version();
    info["cuda_architectures"] = NEC_EXT_CUDA_ARCHITECTURES;
#endif
    info["cpu_capabilities"] = nec::cpu::compiled_capabilities();
    info["cpu_capability"] = nec::cpu::chosen_capability();
    return info;
  });
}
