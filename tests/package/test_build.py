# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What setup.py asks the compilers for, and what is in the library that is loaded."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import setuptools
import torch
from helpers import ROOT
from torch.torch_version import TorchVersion
from torch.utils import cpp_extension
from torch.utils.cpp_extension import BuildExtension

import nec_ext

SWITCHES = "CXX NEC_EXT_CUDA FORCE_CUDA CUDA_HOME CUDA_PATH TORCH_CUDA_ARCH_LIST NEC_EXT_CXX_FLAGS"
KNOWN = "75 80 86 87 89 90 100 103 120"  # architectures, to a compiler


def make_toolkit(home: Path, version: str = "13.0", architectures: str = KNOWN) -> Path:
    """Make enough of a CUDA toolkit to be found, and to be asked its version and architectures."""
    for file in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart_static.a"):
        (home / file).parent.mkdir(parents=True)
        (home / file).touch()
    codes = " ".join(f"sm_{architecture}" for architecture in architectures.split())
    answers = f"--version) echo release {version};; --list-gpu-code) printf '%s\\n' {codes};;"
    (home / "bin/nvcc").write_text(f'#!/bin/sh\ncase "$1" in {answers} esac\n')
    (home / "bin/nvcc").chmod(0o755)
    return home


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run setup.py with these environment variables up to the point where it would build."""
    for name in SWITCHES.split():  # set first, so that what setup.py sets is undone too
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(BuildExtension, "run", lambda self: None)
    monkeypatch.chdir(ROOT)

    def run(torch_cuda: str | None = "13.0", gpus: Any = (), **environment: Any) -> SimpleNamespace:
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_capability", gpus.__getitem__)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        asked: dict[str, Any] = {}
        monkeypatch.setattr(setuptools, "setup", asked.update)
        runpy.run_path("setup.py")
        (extension,) = asked["ext_modules"]

        command = asked["cmdclass"]["build_ext"](setuptools.Distribution())
        command.extensions = [extension]
        return SimpleNamespace(
            build=command.run,
            command=command,
            extension=extension,
            has_kernels=any(source.endswith(".cu") for source in extension.sources),
            architectures=os.environ.get("TORCH_CUDA_ARCH_LIST"),
            macros=dict(extension.define_macros),
        )

    return run


@pytest.mark.parametrize(
    ("options", "has_kernels"),
    [
        ({}, True),
        ({"NEC_EXT_CUDA": "0"}, False),
        ({"CUDA_HOME": os.devnull}, False),
        ({"torch_cuda": None}, False),  # there the kernels serve nobody
        ({"torch_cuda": None, "FORCE_CUDA": "1"}, True),  # they are for another machine
        ({"torch_cuda": None, "FORCE_CUDA": "1", "NEC_EXT_CUDA": "0"}, False),
    ],
)
def test_where_kernels_are_built(
    configure: Any, tmp_path: Path, options: dict[str, Any], has_kernels: bool
) -> None:
    built = configure(**{"CUDA_HOME": make_toolkit(tmp_path), **options})
    assert built.has_kernels == has_kernels
    assert ("csrc/ops/ngf_cuda.cpp" in built.extension.sources) == has_kernels
    assert ("cudart_static" in built.extension.libraries) == has_kernels
    assert not {"cudart", "torch_cuda"} & set(built.extension.libraries)


def test_forced_cuda_needs_a_toolkit(configure: Any) -> None:
    with pytest.raises(SystemExit, match="FORCE_CUDA=1, but there is no CUDA toolkit in"):
        configure(CUDA_HOME=os.devnull, FORCE_CUDA="1")


@pytest.mark.parametrize(
    ("version", "known", "gpus", "chosen"),
    [
        ("13.0", KNOWN, [], "7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX"),
        ("12.6", "70 75 80 86 89 90", [], "7.5 8.0 8.6 8.9 9.0+PTX"),
        # GPUs of this machine, of which no compiler knows the last.
        ("13.0", KNOWN, [(10, 0), (9, 0), (9, 0), (99, 0)], "9.0 10.0+PTX"),
    ],
)
def test_architectures(
    configure: Any, tmp_path: Path, version: str, known: str, gpus: Any, chosen: str
) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path, version, known), gpus=gpus)
    assert built.architectures == chosen
    assert built.macros["NEC_EXT_CUDA_ARCHITECTURES"] == f'"{chosen}"'


def test_compiler_that_is_missing(configure: Any, tmp_path: Path) -> None:
    for environment in ({"CXX": "no-such-compiler"}, {"CXX": "", "PATH": tmp_path}):
        built = configure(**environment)  # an sdist needs none
        with pytest.raises(
            SystemExit, match=r"nec_ext needs a C\+\+ compiler.*set CXX.*NEC_EXT_BUILD=0"
        ):
            built.build()


def test_windows_is_compiled_by_clang(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by cl, which torch's own build would take."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(BuildExtension, "build_extensions", lambda self: None)
    monkeypatch.setattr(shutil, "which", {"clang-cl": "clang-cl.exe"}.get)
    built = configure(CUDA_HOME=os.devnull)
    built.build()
    built.command.compiler = compiler = SimpleNamespace(initialize=lambda: None, cc="cl")
    built.command.build_extensions()
    assert compiler.cc == "clang-cl" and not built.command.use_ninja
    flags = built.extension.extra_compile_args["cxx"]
    assert {"/clang:-O3", "/clang:-fno-math-errno"} < set(flags)
    with pytest.raises(
        SystemExit, match=r"compiled by clang-cl.*C\+\+ Clang tools.*NEC_EXT_BUILD=0"
    ):
        configure(CXX="no-such-compiler").build()


def test_torch_that_is_too_old(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.9.1"))
    with pytest.raises(SystemExit, match=r"needs torch 2\.10 or later, and this is 2\.9\.1"):
        configure()


@pytest.mark.skipif(nec_ext.build_info()["cuda"] is None, reason="built without CUDA")
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_library_has_kernels_and_needs_nothing_of_cuda() -> None:
    """It loads under a torch without CUDA, and beside any version of the CUDA runtime."""
    for op in ("ngf_forward", "ngf_backward", "ngf_eps_backward", "ngf_sums_", "ngf_scale_"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"nec_ext::{op}", "CUDA"), op
    command = ["readelf", "--dynamic", "--wide", nec_ext._C.__file__]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = [line for line in listed.splitlines() if "(NEEDED)" in line]
    assert needed
    assert not [line for line in needed if "cuda" in line]
