# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""python -m nec_ext, build_info, and what the package shows."""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import ROOT, run_python, threads
from torch import Tensor
from torch.autograd import forward_ad

import nec_ext
from nec_ext import _autograd, _devices, _ops
from nec_ext.__main__ import main
from nec_ext._devices import reason_without_kernels

KEYS = {"version", "commit", "torch", "compiler", "cuda", "cuda_architectures"}
KEYS |= {"cpu_capabilities", "cpu_capability"}
NAMES = ("NGFLoss", "build_info", "estimate_eps", "ngf_field", "ngf_loss", "reference")


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
    info.clear()
    assert nec_ext.build_info().keys() >= KEYS  # a dictionary of its own


def test_public_names() -> None:
    assert set(nec_ext.__all__) >= {*NAMES, "__version__"}
    assert all(hasattr(nec_ext, name) for name in nec_ext.__all__)
    assert all(inspect.getdoc(getattr(nec_ext, name)) for name in NAMES)


# ------------------------------------------------------------------------------------------------
# python -m nec_ext
# ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_numpy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a folder for PYTHONPATH in which numpy cannot be imported."""
    folder = tmp_path_factory.mktemp("without_numpy")
    (folder / "numpy.py").write_text("raise ModuleNotFoundError(name='numpy')")
    return str(folder)


@pytest.fixture(scope="module")
def report(without_numpy: str) -> str:
    result = run_python("-m", "nec_ext", OMP_NUM_THREADS="1", PYTHONPATH=without_numpy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""  # nothing about numpy
    return result.stdout


def test_numpy_is_missed_elsewhere(without_numpy: str) -> None:
    """The report alone hides the warning of torch."""
    result = run_python("-c", "import nec_ext", PYTHONPATH=without_numpy)
    assert "Failed to initialize NumPy" in result.stderr


def test_main_prints_where_it_runs_checks_and_times(report: str) -> None:
    facts = {
        **nec_ext.build_info(),
        "package": str(Path(nec_ext.__file__).parent),
        "python": f"{platform.python_version()}, {platform.platform()}",
        "threads": "1",
        "device cpu": "has kernels",
    }
    for name, value in facts.items():
        assert re.search(rf"^{re.escape(name)} +{re.escape(str(value))}$", report, re.MULTILINE)
    assert re.search(r"^cpu {10,}\S", report, re.MULTILINE)  # the model
    head = "loss, relative error gradient, relative L2 fused, ms reference, ms"
    assert head in re.sub(" +", " ", report)
    assert report.endswith("the fused loss agrees with its reference\n")


def test_help_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert printed.startswith("usage: python -m nec_ext") and "times a step" in printed


def test_main_says_why_a_device_has_no_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_ops, "FUSED_DEVICES", frozenset())
    assert main([]) == 0
    printed = capsys.readouterr().out
    line = f"{'device cpu':<20} takes the reference: nec_ext has no kernels for cpu\n"
    assert line in printed and "fused, ms" not in printed


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
        assert main([]) != 0
    assert "wrong" in capsys.readouterr().out.lower()


# ------------------------------------------------------------------------------------------------
# Devices without kernels
# ------------------------------------------------------------------------------------------------


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
    torch.export.export(Wrapped(function), (image, image))
    sentence = "^ngf_loss takes its reference, .* on cpu, as nec_ext has no kernels for cpu$"
    with pytest.warns(RuntimeWarning, match=sentence) as caught:
        loss = function(image, image)
        function(image, image)
    assert [warning.filename for warning in caught] == [__file__]
    assert torch.equal(loss, nec_ext.reference.ngf_loss(image, image))


class Wrapped(torch.nn.Module):
    """A function as a module, which torch.export takes."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *images: Tensor) -> Tensor:
        return self.function(*images)


# ------------------------------------------------------------------------------------------------
# Types
# ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_types_of_what_is_imported_on_demand(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    use = tmp_path / "use.py"
    use.write_text("import nec_ext\nreveal_type(nec_ext.distributed.ngf_loss)\n")
    # torch is skipped, which takes most of a minute.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n[mypy-torch.*]\nfollow_imports = skip\n")
    options = ["--config-file", str(config), "--cache-dir", str(tmp_path), str(use)]
    result = run_python("-m", "mypy", *options, MYPYPATH=str(ROOT))
    assert 'Revealed type is "def (input: Any, target: Any, *, group: ' in result.stdout
