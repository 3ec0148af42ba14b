# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Builds nec_ext._C. Everything but the extension is declared in pyproject.toml.

Environment:
    NEC_EXT_CUDA=0: leave the CUDA kernels out. FORCE_CUDA=1: fail where no CUDA toolkit is found.
    TORCH_CUDA_ARCH_LIST: GPU architectures, as for every extension of torch.
    NEC_EXT_CXX_FLAGS: more compiler and linker flags (a sanitizer's, say).
"""

import os
import sys
from glob import glob

import pybind11
from setuptools import setup
from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension, CppExtension

# Errno and traps for square roots would keep the compiler from vectorizing the loops. -ffast-math,
# which would also do, lets it drop NaNs, and is never used.
FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-fvisibility=hidden",
    "-g0",
]
# A loop that copies a short row is faster than the call of memcpy that gcc would make of it.
if sys.platform == "linux":
    FLAGS.append("-fno-tree-loop-distribute-patterns")
# The stable ABI of torch 2.10: a library built with any later torch runs with every torch from
# there on.
TORCH_2_10 = "-DTORCH_TARGET_VERSION=0x020a000000000000"
EXTRA = os.environ.get("NEC_EXT_CXX_FLAGS", "").split()


def cuda_sources() -> list[str]:
    """The CUDA kernels, where they are wanted and can be compiled."""
    if os.environ.get("NEC_EXT_CUDA") == "0":
        return []
    # CUDAExtension refuses a torch without CUDA, even beside a toolkit; the library that is built
    # here loads under both.
    if cpp_extension.CUDA_HOME is None:
        if os.environ.get("FORCE_CUDA") == "1":
            raise RuntimeError("FORCE_CUDA=1, but no CUDA toolkit was found: set CUDA_HOME")
        return []
    return sorted(glob("csrc/cuda/*.cu"))


extension = CppExtension(
    "nec_ext._C",
    sorted(glob("csrc/**/*.cpp", recursive=True)) + cuda_sources(),
    # pybind11's own headers go before the older copy that torch brings.
    include_dirs=[pybind11.get_include()],
    extra_compile_args=[*FLAGS, TORCH_2_10, *EXTRA],
    extra_link_args=EXTRA,
)
# The stable ABI needs no symbol of torch's Python binding.
extension.libraries = [name for name in extension.libraries if name != "torch_python"]

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
