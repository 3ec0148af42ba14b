# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Builds nec_ext._C. Everything but the extension is declared in pyproject.toml.

Environment:
    NEC_EXT_CUDA=0: leave the CUDA kernels out. FORCE_CUDA=1: fail where no CUDA toolkit is found.
    CUDA_HOME: the toolkit, if it is not the one of the nvcc on the path or in /usr/local/cuda.
    TORCH_CUDA_ARCH_LIST: GPU architectures, as for every extension of torch. Default: those of the
        GPUs in this machine, or without any all that ARCHITECTURES lists.
    NEC_EXT_CXX_FLAGS: more compiler and linker flags (a sanitizer's, say).
"""

import os
import shutil
import subprocess
import sys
import zlib
from glob import glob
from pathlib import Path

import pybind11
import torch
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
# The host's part of the kernels only launches them. Several architectures are compiled at a time.
NVCC_FLAGS = ["-O3", "-lineinfo", "-Xcompiler=-fvisibility=hidden", "--threads=4"]
# The first of every generation since Turing, and for whatever comes, the last as PTX.
ARCHITECTURES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
# The stable ABI of torch 2.10: a library built with any later torch runs with every torch from
# there on.
TORCH_2_10 = "-DTORCH_TARGET_VERSION=0x020a000000000000"
EXTRA = os.environ.get("NEC_EXT_CXX_FLAGS", "").split()


def find_toolkit() -> str | None:
    """The CUDA toolkit, where it is wanted and there is one."""
    if os.environ.get("NEC_EXT_CUDA") == "0" or torch.version.hip:
        return None
    chosen = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = os.path.realpath(shutil.which("nvcc") or "nvcc")
    homes = [chosen] if chosen else [os.path.dirname(os.path.dirname(nvcc)), "/usr/local/cuda"]
    for home in homes:
        # An nvcc without headers is a script that calls one elsewhere.
        headers = (f"{home}/include/cuda_runtime.h", f"{home}/targets/*/include/cuda_runtime.h")
        if os.path.exists(f"{home}/bin/nvcc") and any(map(glob, headers)):
            return home
    if os.environ.get("FORCE_CUDA") == "1":
        raise RuntimeError(
            f"FORCE_CUDA=1, but there is no CUDA toolkit in {' or '.join(homes)}: set CUDA_HOME"
        )
    return None


def ask_nvcc(toolkit: str, option: str) -> str:
    """What the compiler says about itself."""
    command = [f"{toolkit}/bin/nvcc", option]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def choose_architectures(toolkit: str) -> str:
    """As in TORCH_CUDA_ARCH_LIST."""
    if chosen := os.environ.get("TORCH_CUDA_ARCH_LIST"):
        return chosen
    known = ask_nvcc(toolkit, "--list-gpu-code").split()
    gpus = {torch.cuda.get_device_capability(k) for k in range(torch.cuda.device_count())}
    for wanted in ([f"{major}.{minor}" for major, minor in sorted(gpus)], ARCHITECTURES):
        if chosen := [name for name in wanted if f"sm_{name.replace('.', '')}" in known]:
            return f"{' '.join(chosen)}+PTX"
    raise RuntimeError(f"the nvcc of {toolkit} knows no GPU of {', '.join(ARCHITECTURES)}")


def choose_nvcc_flags(toolkit: str) -> list[str]:
    """Those of every toolkit, and what the toolkit at hand needs."""
    # A sixth of the size. Drivers before CUDA 12.4 cannot read it, and those of 13 all can.
    compress = "release 12" not in ask_nvcc(toolkit, "--version")
    # ninja is told of the headers of .cu files only by a torch with CUDA: beside any other, a
    # change of theirs must be one of the command.
    headers = sorted(glob("csrc/cuda/*.*[hl]") + glob("csrc/math/*") + ["csrc/problem.h"])
    digest = zlib.crc32(b"".join(Path(header).read_bytes() for header in headers))
    return [*NVCC_FLAGS, *["--compress-mode=size"] * compress, f"-DNEC_EXT_HEADERS={digest}"]


def add_cuda(extension: CppExtension, toolkit: str) -> None:
    """Adds the kernels to the extension. The library still loads under a torch without CUDA."""
    architectures = choose_architectures(toolkit)
    # What torch reads: it looks for a toolkit and for architectures only where it has CUDA itself.
    cpp_extension.CUDA_HOME = toolkit
    os.environ["TORCH_CUDA_ARCH_LIST"] = architectures
    extension.sources += sorted(glob("csrc/cuda/*.cu"))
    shown = architectures.replace(";", " ")
    extension.define_macros.append(("NEC_EXT_CUDA_ARCHITECTURES", f'"{shown}"'))
    extension.extra_compile_args["nvcc"] = choose_nvcc_flags(toolkit)
    for folder in ("lib*", "targets/*/lib"):
        found = glob(f"{toolkit}/{folder}/libcudart_static.a")
        extension.library_dirs += [os.path.dirname(library) for library in found]
    extension.libraries += ["cudart_static", "rt", "pthread", "dl"]


toolkit = find_toolkit()
sources = set(glob("csrc/**/*.cpp", recursive=True))
extension = CppExtension(
    "nec_ext._C",
    sorted(sources if toolkit else sources - {"csrc/ops/ngf_cuda.cpp"}),
    # pybind11's own headers go before the older copy that torch brings.
    include_dirs=[pybind11.get_include()],
    extra_compile_args={"cxx": [*FLAGS, TORCH_2_10, *EXTRA]},
    extra_link_args=EXTRA,
)
# The stable ABI needs no symbol of torch's Python binding.
extension.libraries = [name for name in extension.libraries if name != "torch_python"]
if toolkit:
    # CUDAExtension would refuse a torch without CUDA.
    add_cuda(extension, toolkit)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension})
