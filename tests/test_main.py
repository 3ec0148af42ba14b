# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""python -m nec_ext, build_info, and what the package shows."""

from __future__ import annotations

import importlib.metadata
import inspect
import re

import pytest
import torch
from helpers import run_python, threads

import nec_ext
from nec_ext import _autograd, _ops
from nec_ext.__main__ import main

KEYS = {
    "version",
    "commit",
    "torch",
    "compiler",
    "cuda",
    "cuda_architectures",
    "cpu_capabilities",
    "cpu_capability",
}


def test_build_info() -> None:
    info = nec_ext.build_info()
    assert info.keys() >= KEYS
    assert info["version"] == nec_ext.__version__ == importlib.metadata.version("nec_ext")
    assert info["version"].partition("+g")[2] == (info["commit"] or "")
    assert info["torch"] == torch.__version__
    assert info["cpu_capability"] in info["cpu_capabilities"].split()
    assert info["cpu_capabilities"].split()[0] == "baseline"
    assert info["compiler"].split()[0] in ("gcc", "clang", "msvc")
    assert (info["cuda"] is None) == (info["cuda_architectures"] is None)
    assert all(value is None or isinstance(value, str) for value in info.values())


def test_build_info_is_a_fresh_dictionary() -> None:
    nec_ext.build_info().clear()
    assert nec_ext.build_info().keys() >= KEYS


def test_public_names() -> None:
    names = {
        "NGFLoss",
        "__version__",
        "build_info",
        "estimate_eps",
        "ngf_field",
        "ngf_loss",
        "reference",
    }
    assert set(nec_ext.__all__) >= names
    for name in nec_ext.__all__:
        assert hasattr(nec_ext, name)
    for name in names - {"__version__"}:
        assert inspect.getdoc(getattr(nec_ext, name))


@pytest.fixture(scope="module")
def report() -> str:
    result = run_python("-m", "nec_ext", OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_main_prints_build_info(report: str) -> None:
    for name, value in nec_ext.build_info().items():
        assert name in report
        assert value is None or value in report


def test_main_checks_against_the_reference_and_times_both(report: str) -> None:
    assert "reference" in report.lower()
    assert re.search(r"\b(ms|us|ns|seconds)\b", report)


@pytest.mark.cuda
@pytest.mark.skipif(not (_ops.HAS_CUDA and torch.cuda.is_available()), reason="needs a GPU")
def test_main_includes_the_gpu(report: str) -> None:
    assert torch.cuda.get_device_name() in report


def test_main_fails_if_the_loss_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code means something: it is not 0 if the loss is off by a hundred-thousandth."""
    right = _autograd.fused_loss
    monkeypatch.setattr(_autograd, "fused_loss", lambda *arguments: (1 + 1e-5) * right(*arguments))
    with threads(1):
        assert main() != 0
    assert "wrong" in capsys.readouterr().out.lower()
