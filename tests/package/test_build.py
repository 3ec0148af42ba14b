# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What setup.py asks the compilers for, and what is in the library that is loaded."""

from __future__ import annotations

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

SWITCHES = (
    "CXX",
    "NEC_EXT_CUDA",
    "FORCE_CUDA",
    "CUDA_HOME",
    "CUDA_PATH",
    "TORCH_CUDA_ARCH_LIST",
    "NEC_EXT_CXX_FLAGS",
)


KNOWN = "75 80 86 87 89 90 100 103 120"  # architectures, to a compiler


def make_toolkit(home: Path, version: str = "13.0", architectures: str = KNOWN) -> Path:
    """Make enough of a CUDA toolkit to be found, and to be asked its version and architectures."""
    for file in ("bin/nvcc", "include/cuda_runtime.h", "lib64/libcudart_static.a"):
        (home / file).parent.mkdir(parents=True)
        (home / file).touch()
    codes = " ".join(f"sm_{architecture}" for architecture in architectures.split())
    answers = f"--version) echo release {version};; --list-gpu-code) printf '%s\\n' {codes};;"
    make_program(home / "bin/nvcc", f'case "$1" in {answers} esac')
    return home


def make_program(path: Path, command: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run setup.py with these environment variables up to the point where it would build."""
    for name in SWITCHES:  # set first, so that what setup.py sets is undone too
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(BuildExtension, "run", lambda self: None)
    monkeypatch.chdir(ROOT)

    def run(
        torch_cuda: str | None = "13.0", gpus: Any = (), **environment: str | Path
    ) -> SimpleNamespace:
        monkeypatch.setattr(torch.version, "cuda", torch_cuda)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
        monkeypatch.setattr(torch.cuda, "get_device_capability", gpus.__getitem__)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        asked: dict[str, Any] = {}
        monkeypatch.setattr(setuptools, "setup", asked.update)
        runpy.run_path("setup.py")
        (extension,) = asked["ext_modules"]

        def build() -> list[str]:
            """Return the flags of the compiler."""
            command = asked["cmdclass"]["build_ext"](setuptools.Distribution())
            command.extensions = [extension]
            command.run()
            return list(extension.extra_compile_args["cxx"])

        return SimpleNamespace(
            build=build,
            extension=extension,
            has_kernels=any(source.endswith(".cu") for source in extension.sources),
            has_cuda_ops="csrc/ops/ngf_cuda.cpp" in extension.sources,
            architectures=os.environ.get("TORCH_CUDA_ARCH_LIST"),
            macros=dict(extension.define_macros),
        )

    return run


def test_toolkit_beside_a_torch_with_cuda(configure: Any, tmp_path: Path) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path))
    assert built.has_kernels and built.has_cuda_ops
    assert str(tmp_path) == cpp_extension.CUDA_HOME
    assert str(tmp_path / "lib64") in built.extension.library_dirs
    assert "cudart_static" in built.extension.libraries
    assert not {"cudart", "torch_cuda"} & set(built.extension.libraries)


@pytest.mark.parametrize(
    ("has_toolkit", "options", "has_kernels"),
    [
        (True, {"NEC_EXT_CUDA": "0"}, False),
        (False, {}, False),
        (True, {"torch_cuda": None}, False),  # there the kernels serve nobody
        (True, {"torch_cuda": None, "FORCE_CUDA": "1"}, True),  # they are for another machine
        (True, {"torch_cuda": None, "FORCE_CUDA": "1", "NEC_EXT_CUDA": "0"}, False),
    ],
)
def test_where_kernels_are_built(
    configure: Any, tmp_path: Path, has_toolkit: bool, options: dict[str, Any], has_kernels: bool
) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path) if has_toolkit else tmp_path, **options)
    assert built.has_kernels == built.has_cuda_ops == has_kernels
    assert ("NEC_EXT_CUDA_ARCHITECTURES" in built.macros) == has_kernels
    assert ("cudart_static" in built.extension.libraries) == has_kernels


def test_minutes_of_compiling_are_announced(
    configure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path))
    assert capsys.readouterr().out == ""  # pip reads setup.py more often than it builds
    built.build()
    (line,) = [s for s in capsys.readouterr().out.splitlines() if "CUDA" in s]
    assert "7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX" in line
    assert " min;" in line and "NEC_EXT_CUDA=0" in line


def test_toolkit_of_the_compiler_on_the_path(configure: Any, tmp_path: Path) -> None:
    toolkit = make_toolkit(tmp_path / "toolkit")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").symlink_to(toolkit / "bin/nvcc")
    assert configure(PATH=tmp_path / "bin").has_kernels
    assert str(toolkit) == cpp_extension.CUDA_HOME


def test_compiler_without_headers_is_no_toolkit(configure: Any, tmp_path: Path) -> None:
    """A script on the path may call the nvcc of a toolkit elsewhere."""
    make_program(tmp_path / "bin/nvcc", "exit 1")
    configure(PATH=tmp_path / "bin")
    assert cpp_extension.CUDA_HOME in (None, "/usr/local/cuda")


def test_forced_cuda_needs_a_toolkit(configure: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="FORCE_CUDA=1, but there is no CUDA toolkit in"):
        configure(CUDA_HOME=tmp_path, FORCE_CUDA="1")


@pytest.mark.parametrize(
    ("version", "known", "gpus", "chosen"),
    [
        ("13.0", KNOWN, [], "7.5 8.0 8.6 8.9 9.0 10.0 12.0+PTX"),
        ("12.6", "70 75 80 86 89 90", [], "7.5 8.0 8.6 8.9 9.0+PTX"),
        # Those of this machine, of which no compiler knows the last.
        ("13.0", KNOWN, [(10, 0), (9, 0), (9, 0), (99, 0)], "9.0 10.0+PTX"),
    ],
)
def test_architectures(
    configure: Any, tmp_path: Path, version: str, known: str, gpus: Any, chosen: str
) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path, version, known), gpus=gpus)
    assert built.architectures == chosen
    assert built.macros["NEC_EXT_CUDA_ARCHITECTURES"] == f'"{chosen}"'


def test_small_kernels_are_for_the_drivers_of_cuda_13(configure: Any, tmp_path: Path) -> None:
    for version, is_small in (("12.9", False), ("13.0", True)):
        built = configure(CUDA_HOME=make_toolkit(tmp_path / version, version))
        flags = built.extension.extra_compile_args["nvcc"]
        assert ("--compress-mode=size" in flags) == is_small


def test_two_passes_of_the_front_end(configure: Any, tmp_path: Path) -> None:
    """They give machine code for every architecture, and PTX for the GPUs to come."""
    built = configure(CUDA_HOME=make_toolkit(tmp_path))
    passes = [f for f in built.extension.extra_compile_args["nvcc"] if f.startswith("-gencode")]
    assert passes == [
        "-gencode=arch=compute_75,code=[sm_75,sm_80,sm_86,sm_89]",
        "-gencode=arch=compute_90,code=[sm_90,sm_100,sm_120,compute_90]",
    ]


def test_chosen_architectures(configure: Any, tmp_path: Path) -> None:
    built = configure(CUDA_HOME=make_toolkit(tmp_path), TORCH_CUDA_ARCH_LIST="8.6;9.0+PTX")
    assert built.architectures == "8.6;9.0+PTX"
    assert not any("gencode" in flag for flag in built.extension.extra_compile_args["nvcc"])
    assert built.macros["NEC_EXT_CUDA_ARCHITECTURES"] == '"8.6 9.0+PTX"'


@pytest.mark.parametrize(
    ("macros", "known", "unknown"),
    [
        ("__GNUC__ __x86_64__", "-fno-tree-loop-distribute-patterns", "-Wno-pass-failed"),
        ("__GNUC__ __clang__", "-Wno-pass-failed", "-mprefer-vector-width=512"),
        ("__clang__ __x86_64__", "-mprefer-vector-width=512", "-fno-tree-loop-dist"),
    ],
)
def test_flags_that_the_compiler_knows(
    configure: Any, tmp_path: Path, macros: str, known: str, unknown: str
) -> None:
    make_program(tmp_path / "mine", f"printf '#define %s 1\\n' {macros}")
    flags = configure(CXX=f"{tmp_path}/mine -some-flag", NEC_EXT_CXX_FLAGS="-mine").build()
    assert known in flags and "-O3" in flags and "-mine" in flags
    assert not [flag for flag in flags if flag.startswith(unknown)]


def test_compiler_that_is_missing(configure: Any, tmp_path: Path) -> None:
    for environment in ({"CXX": "no-such-compiler"}, {"CXX": "", "PATH": tmp_path}):
        built = configure(**environment)  # an sdist needs none
        with pytest.raises(SystemExit, match=r"nec_ext needs a C\+\+ compiler.*set CXX"):
            built.build()


@pytest.mark.parametrize(
    ("module", "version", "remedy"),
    [(setuptools, "65.5.0", "pip install"), (torch, TorchVersion("2.9.1"), "torch 2.10 or later")],
)
def test_tools_that_are_too_old(
    configure: Any, monkeypatch: pytest.MonkeyPatch, module: Any, version: str, remedy: str
) -> None:
    monkeypatch.setattr(module, "__version__", version)
    with pytest.raises(SystemExit, match=rf"{remedy}.*{version}|{version}.*{remedy}"):
        configure()


needs_kernels = pytest.mark.skipif(
    nec_ext.build_info()["cuda"] is None, reason="built without CUDA"
)


@needs_kernels
def test_kernels_are_in_the_library() -> None:
    info = nec_ext.build_info()
    major, minor = (info["cuda"] or "").split(".")
    assert int(major) >= 12 and int(minor) >= 0
    assert all(float(name.removesuffix("+PTX")) >= 5 for name in info["cuda_architectures"].split())
    for op in ("ngf_forward", "ngf_backward", "ngf_scale_"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"nec_ext::{op}", "CUDA"), op


@needs_kernels
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_library_needs_nothing_of_cuda() -> None:
    """It loads under a torch without CUDA, and beside any version of the CUDA runtime."""
    command = ["readelf", "--dynamic", "--wide", nec_ext._C.__file__]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    needed = [line for line in listed.splitlines() if "(NEEDED)" in line]
    assert needed
    assert not [line for line in needed if "cuda" in line]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc on the path")
def test_no_float32_kernel_keeps_registers_in_memory() -> None:
    command = [sys.executable, "-m", "benchmarks.registers", "--architectures", "90"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    # 2 dimensions, 3 operators, 3 sets of gradients; float32 and float64.
    rows = [line for line in result.stdout.splitlines() if line.startswith("| float")]
    assert len(rows) == 36
