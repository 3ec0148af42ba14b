# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""One process: forked, with a second copy of the package, none that is built, an unread output."""

import importlib.metadata
import os
import re
import shutil
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

PACKAGE = ROOT / "nec_ext"

FORK = """
import os, signal, sys, torch, nec_ext
torch.set_num_threads(4)
target, input = torch.rand(2, 1, 1, 64, 64, 64)
input.requires_grad_()
def step():
    loss = nec_ext.ngf_loss(input, target)
    (gradient,) = torch.autograd.grad(loss, input, torch.tensor(-2.5))
    return loss.item(), gradient.numpy().tobytes()
expected = step()
child = os.fork()
if child == 0:
    signal.alarm(60)
    os._exit(0 if step() == expected else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

# The package of one folder after the other, in one process.
IMPORTS = """
import sys
for folder in sys.argv[1:]:
    for name in [name for name in sys.modules if name.partition(".")[0] == "nec_ext"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    try:
        import nec_ext
        print("imported")
    except ImportError as error:
        print(error)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes() -> None:
    result = run_python("-c", FORK)
    assert result.returncode == 0, result.stderr


def imports(*folders: Path) -> list[str]:
    result = run_python("-c", IMPORTS, *map(str, folders))
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_second_copy_is_an_import_error(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "nec_ext")
    *first, second = imports(ROOT, ROOT, tmp_path)
    assert first == ["imported"] * 2  # the same copy twice
    assert second.startswith(f"nec_ext in {tmp_path / 'nec_ext'} cannot be imported")
    assert f"from {PACKAGE}" in second


def test_without_its_extension(tmp_path: Path) -> None:
    sentences = {
        "csrc/problem.h": "source folder of nec_ext, without its extension: start Python",
        "nec_ext/_C.cpython-39-x86_64-linux-gnu.so": "built for another Python, as _C.cpython-39",
        "nec_ext/_C.abi3.so": "cannot be loaded beside torch",
        "nec_ext/nothing": "has no extension: install it again",
    }
    folders = [tmp_path / str(k) for k in range(len(sentences))]
    for folder, file in zip(folders, sentences, strict=True):
        shutil.copytree(PACKAGE, folder / "nec_ext", ignore=shutil.ignore_patterns("_C.*"))
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    for printed, sentence in zip(imports(*folders), sentences.values(), strict=True):
        assert sentence in printed


# --- Commands whose output nobody reads any more end quietly --------------------------------------

# Without torch, as nec_ext._console it is the same.
START = "from benchmarks.console import run_command\n"
FULL = "'x' * 100_000"  # more than any buffer


def unread(*arguments: str) -> tuple[int, str]:
    """Return exit code and standard error of Python whose output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        result = run_python(*arguments, output=output, PYTHONUNBUFFERED="")
    return result.returncode, result.stderr


def test_an_output_that_nobody_reads() -> None:
    for printed in ("'a line'", FULL, "'a line', flush=True"):
        assert unread("-c", f"{START}run_command(lambda: print({printed}))") == (141, "")


@pytest.mark.parametrize("error", ["BrokenPipeError", "ValueError"])
def test_other_errors_are_seen(error: str) -> None:
    """Errors of other pipes are seen too, and errors of a command whose output nobody reads."""
    code = f"{START}def main():\n    print('a line')\n    raise {error}('wrong')\nrun_command(main)"
    read = run_python("-c", code)
    assert read.stdout == "a line\n"
    for status, text in ((read.returncode, read.stderr), unread("-c", code)):
        assert (status, text.splitlines()[-1]) == (1, f"{error}: wrong")
        assert "Exception ignored" not in text


def test_every_command_ends_so() -> None:
    for folder in ("nec_ext", "examples", "benchmarks"):
        texts = [path.read_text("utf-8") for path in (ROOT / folder).rglob("*.py")]
        ends = [text.split('if __name__ == "__main__":\n')[1:] for text in texts]
        commands = [end for end in ends if end]
        assert commands and all(end[0].startswith("    run_command(") for end in commands)


@pytest.mark.slow
def test_the_report() -> None:
    assert unread("-m", "nec_ext") == (141, "")


# --- python -m nec_ext and build_info ------------------------------------------------------------


def test_build_info() -> None:
    info = nec_ext.build_info()
    assert info["version"] == nec_ext.__version__ == importlib.metadata.version("nec_ext")
    assert info["version"].partition("+g")[2] == (info["commit"] or "")
    assert info["torch"] == torch.__version__
    assert info["cpu_capability"] in info["cpu_capabilities"].split()
    assert info["cpu_capabilities"].split()[0] == "baseline"
    assert info["compiler"].split()[0] in ("gcc", "clang")
    assert (info["cuda"] is None) == (info["cuda_architectures"] is None)
    assert all(value is None or isinstance(value, str) for value in info.values())


def test_main_prints_where_it_runs_checks_and_times(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(name='numpy')")  # torch warns
    result = run_python("-m", "nec_ext", OMP_NUM_THREADS="1", PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
    for name, value in nec_ext.build_info().items():
        assert re.search(rf"^{name} +{re.escape(str(value))}$", result.stdout, re.MULTILINE)
    assert "fused, ms" in result.stdout
    assert result.stdout.endswith("the fused loss agrees with its reference\n")


def test_main_fails_if_the_loss_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code means something: it is not 0 if the loss is off by a hundred-thousandth."""
    right = _autograd.fused_loss
    monkeypatch.setattr(_autograd, "fused_loss", lambda *arguments: (1 + 1e-5) * right(*arguments))
    with threads(1):
        assert main([]) != 0
    assert "wrong" in capsys.readouterr().out.lower()


def test_why_there_are_no_kernels() -> None:
    for kind, is_rocm, reason in (
        ("mps", False, "nec_ext has no kernels for mps"),
        ("cuda", True, "nec_ext has no kernels for ROCm"),
        ("cuda", False, "this build of nec_ext has no CUDA kernels: build it with FORCE_CUDA=1"),
    ):
        found = reason_without_kernels(kind, is_rocm=is_rocm, fused=frozenset({"cpu", "meta"}))
        assert found.startswith(reason)
    for kind in ("cpu", "cuda"):
        assert reason_without_kernels(kind, is_rocm=False, fused=frozenset({kind})) is None


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
