# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""python -m nec_ext, build_info, and what the package shows."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from collections.abc import Callable

import pytest
import torch
from helpers import run_python, threads
from torch import Tensor
from torch.autograd import forward_ad

import nec_ext
from nec_ext import _autograd, _devices, _ops
from nec_ext.__main__ import main
from nec_ext._devices import reason_without_kernels

NAMES = ("NGFLoss", "build_info", "estimate_eps", "ngf_field", "ngf_loss", "reference")


def test_build_info() -> None:
    info = nec_ext.build_info()
    assert info["version"] == nec_ext.__version__ == importlib.metadata.version("nec_ext")
    assert info["version"].partition("+g")[2] == (info["commit"] or "")
    assert info["torch"] == torch.__version__
    assert info["cpu_capability"] in info["cpu_capabilities"].split()
    assert info["cpu_capabilities"].split()[0] == "baseline"
    assert info["compiler"].split()[0] in ("gcc", "clang", "msvc")
    assert (info["cuda"] is None) == (info["cuda_architectures"] is None)
    assert all(value is None or isinstance(value, str) for value in info.values())


def test_public_names() -> None:
    assert set(nec_ext.__all__) >= {*NAMES, "__version__"}
    assert all(hasattr(nec_ext, name) for name in nec_ext.__all__)
    assert all(inspect.getdoc(getattr(nec_ext, name)) for name in NAMES)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the report where numpy cannot be imported, of which torch would warn."""
    folder = tmp_path_factory.mktemp("without_numpy")
    (folder / "numpy.py").write_text("raise ModuleNotFoundError(name='numpy')")
    result = run_python("-m", "nec_ext", OMP_NUM_THREADS="1", PYTHONPATH=str(folder))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_main_prints_where_it_runs_checks_and_times(report: str) -> None:
    for name, value in nec_ext.build_info().items():
        assert re.search(rf"^{name} +{re.escape(str(value))}$", report, re.MULTILINE)
    assert "fused, ms" in report
    assert report.endswith("the fused loss agrees with its reference\n")


def test_main_fails_if_the_loss_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code means something: it is not 0 if the loss is off by a hundred-thousandth."""
    right = _autograd.fused_loss
    monkeypatch.setattr(_autograd, "fused_loss", lambda *arguments: (1 + 1e-5) * right(*arguments))
    with threads(1):
        assert main([]) != 0
    assert "wrong" in capsys.readouterr().out.lower()


@pytest.mark.parametrize(
    ("kind", "is_rocm", "reason"),
    [
        ("cpu", False, None),
        ("mps", False, "nec_ext has no kernels for mps"),
        ("cuda", True, "nec_ext has no kernels for ROCm"),
        ("cuda", False, "this build of nec_ext has no CUDA kernels: build it with FORCE_CUDA=1"),
    ],
)
def test_why_there_are_no_kernels(kind: str, is_rocm: bool, reason: str | None) -> None:
    found = reason_without_kernels(kind, is_rocm=is_rocm, fused=frozenset({"cpu", "meta"}))
    assert found == reason if reason is None else found.startswith(reason)
    assert reason_without_kernels("cuda", is_rocm=False, fused=frozenset({"cuda"})) is None


@pytest.mark.parametrize("function", [nec_ext.ngf_loss, nec_ext.NGFLoss()], ids=["loss", "module"])
def test_the_reference_is_not_taken_silently(
    function: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It warns once, at the line of the caller, and not in torch.compile or forward mode."""
    image = torch.rand(1, 1, 5, 6)
    with forward_ad.dual_level():
        function(forward_ad.make_dual(image, image), image)
    monkeypatch.setattr(_ops, "FUSED_DEVICES", frozenset())
    monkeypatch.setattr(_devices, "_warned", set())
    torch.compile(function, backend="eager", fullgraph=True)(image, image)
    module = torch.nn.Module()  # which torch.export takes
    module.forward = lambda *images: function(*images)
    torch.export.export(module, (image, image))
    sentence = "^ngf_loss takes its reference, .* on cpu, as nec_ext has no kernels for cpu$"
    with pytest.warns(RuntimeWarning, match=sentence) as caught:
        loss = function(image, image)
        function(image, image)
    assert [warning.filename for warning in caught] == [__file__]
    assert torch.equal(loss, nec_ext.reference.ngf_loss(image, image))
