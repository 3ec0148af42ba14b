# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/common, the demo, and what is one file: the notebook too has its cells and its code."""

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest
import torch
from helpers import ROOT
from matplotlib.image import imread

from examples import demo, register_pair, synthesis
from examples.common.eager import eager_ngf_loss
from examples.common.measure import loss_and_gradient, peak_memory
from examples.common.phantom import TISSUES, brain_phantom
from examples.registration.warp import warp
from nec_ext import reference

# Axes that point posterior, left and superior, with voxels of 2 x 1 x 4 mm along them.
AFFINE = np.array([[0, -1, 0, 30], [-2, 0, 0, 50], [0, 0, 4, -20], [0, 0, 0, 1.0]])


def test_phantom_is_determined_by_seed_and_index() -> None:
    first, again, *others = (
        brain_phantom((48, 48), seed=seed, index=index).labels
        for seed, index in ((3, 5), (3, 5), (4, 5), (3, 6))
    )
    np.testing.assert_array_equal(first, again)
    assert all((other != first).mean() > 0.05 for other in others)


def test_phantom_looks_like_two_mr_contrasts() -> None:
    phantom = brain_phantom((40, 48, 40), index=2, tumour=True)
    t1, t2 = (
        {name: image[phantom.labels == k].mean() for k, name in enumerate(TISSUES)}
        for image in phantom[:2]
    )
    assert t1["CSF"] < t1["GM"] < t1["deep GM"] < t1["WM"]
    assert t2["WM"] < t2["deep GM"] < t2["GM"] < t2["CSF"]
    # What no intensity curve can translate: nearly grey matter in T1, far from it in T2.
    assert abs(t1["oedema"] / t1["GM"] - 1) < 0.12 < t2["oedema"] / t2["GM"] - 1


def test_eager_formula_is_the_loss() -> None:
    input, target = torch.randn(2, 1, 2, 6, 7, 5, dtype=torch.float64)
    options = {"eps": 0.3, "spacing": (1.0, 0.5, 2.0)}
    eager = loss_and_gradient(functools.partial(eager_ngf_loss, **options), input, target)
    exact = loss_and_gradient(functools.partial(reference.ngf_loss, **options), input, target)
    torch.testing.assert_close(eager, exact, rtol=1e-9, atol=1e-12)


def test_peak_memory_counts_what_lives_at_once() -> None:
    def call() -> None:
        torch.ones(1000)
        kept = torch.ones(2000)
        kept + 1

    # A few bytes more for the number that is added.
    assert peak_memory(call) == pytest.approx(2 * 2000 * 4, abs=64)


@pytest.fixture(autouse=True)
def quick_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ROUNDS", 1)
    # Without the half minute of a compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return str(path)


def voxels(shape: tuple[int, ...] = (9, 8, 7)) -> np.ndarray:
    return np.random.default_rng(len(shape)).gamma(2, 100, shape).astype(np.float32)


def test_demo_on_the_phantom(tmp_path: Path) -> None:
    assert demo.main(["--size", "32", "40", "32", "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "result.json").read_text())
    assert facts["shape"] == [32, 40, 32]
    assert [row["method"] for row in facts["rows"]] == ["fused", "eager", "compiled"]
    for row in facts["rows"]:
        assert row["loss_error"] < 1e-5 and row["gradient_error"] < 1e-5
    assert facts["rows"][0]["memory"] < 1.1
    assert facts["rows"][1]["memory"] > 10
    for name in ("ngf", "summary"):
        assert imread(tmp_path / f"{name}.png").std() > 0.1


def test_demo_on_files(tmp_path: Path) -> None:
    images = voxels(), voxels()[::-1].copy()
    t1, t2 = (write(tmp_path / f"{k}.nii.gz", image) for k, image in enumerate(images))
    assert demo.main(["--t1", t1, "--t2", t2, "--out", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out" / "result.json").read_text())
    assert facts["shape"] == [8, 9, 7]
    assert facts["spacing_mm"] == [1, 2, 4]
    # The loss does not depend on how the axes are ordered and directed in the file.
    scaled = (torch.as_tensor(demo._scale("", image)).double() for image in reversed(images))
    exact = reference.ngf_loss(*scaled, eps=demo.EPS, spacing=(2, 1, 4))
    assert facts["rows"][0]["loss"] == pytest.approx(exact.item(), rel=1e-6)


def test_demo_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t1, flat, out = write(tmp_path / "t1.nii", voxels()), tmp_path / "flat.nii", tmp_path / "out"
    write(flat, 0 * voxels())
    for words, sentence in (
        (["--t1", t1, "--t2", "none.nii"], "none.nii does not exist"),
        (["--t1", t1], "give both --t1 and --t2"),
        (["--t1", t1, "--t2", str(flat)], ".nii has no contrast"),
        (["--size", "4", "4", "4"], "size must be"),
    ):
        assert demo.main([*words, "--out", str(out)]) == 2
        printed = capsys.readouterr()
        assert sentence in printed.err
        assert printed.err.count("\n") == 1
        assert not out.exists()


def test_demo_fails_if_the_fused_loss_is_not_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "GRADIENT_TOLERANCE", 0)
    assert demo.main(["--size", "16", "16", "16", "--out", str(tmp_path)]) == 1
    assert "differs from its reference" in capsys.readouterr().err


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", text.splitlines()[0])]


@pytest.mark.parametrize("dims", [2, 3])
def test_synthesis(
    dims: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "TEST_SUBJECTS", 2)
    small = ["--size", "24", "--subjects", "2", "--steps", "2", "--dims", str(dims)]
    assert synthesis.main([*small, "--out", str(tmp_path)]) == 0
    before, after = numbers(capsys.readouterr().out)
    assert 5 < before < 20 and 0 < after < 30
    assert imread(tmp_path / "synthesis.png").std() > 0.05


@pytest.mark.parametrize("transform", ["affine", "displacement"])
def test_registration(transform: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--size", "32", "40", "32", "--levels", "2", "--steps", "30"]
    assert register_pair.main([*small, "--transform", transform, "--out", str(tmp_path)]) == 0
    before, after = numbers(capsys.readouterr().out)
    assert after < {"affine": 0.4, "displacement": 0.75}[transform] * before
    assert imread(tmp_path / "register_pair.png").std() > 0.05


def test_warps_as_examples_registration_which_shares_no_line() -> None:
    image, spacing = torch.rand(1, 1, 5, 6, 7), (1.0, 2.0, 3.0)
    anything = 4 * torch.rand(1, 3, 5, 6, 7) - 2
    other = register_pair.warp(image, anything, spacing)
    torch.testing.assert_close(warp(image, anything, spacing), other, rtol=1e-4, atol=1e-5)


def test_registration_of_files(tmp_path: Path) -> None:
    head = np.zeros((16, 16, 16), np.float32)
    head[3:12, 4:13, 4:12] = np.arange(1, 9)
    affine = np.diag([2.0, 2, 3, 1])
    pair = ("t1", np.where(head > 0, 9 - head, 0)), ("t2", head)
    files = [write(tmp_path / f"{name}.nii.gz", image, affine) for name, image in pair]
    words = [*files, "--levels", "1", "--steps", "1", "--out", str(tmp_path)]
    assert register_pair.main(words) == 0
    moved = nibabel.load(tmp_path / "registered.nii.gz")
    np.testing.assert_allclose(moved.affine, affine)


QUICKSTART = ROOT / "examples" / "quickstart.py"


def cells() -> list[str]:
    first, *parts = re.split(r"^# %%( \[markdown\])?\n", QUICKSTART.read_text(), flags=re.MULTILINE)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    rest = [re.sub(r"^# ?", "", t, flags=re.MULTILINE) if mark else t for mark, t in pairs]
    return [cell.strip() for cell in (first, *rest)]


def test_notebook_is_the_file() -> None:
    notebook = json.loads(QUICKSTART.with_suffix(".ipynb").read_text())
    assert ["".join(cell["source"]) for cell in notebook["cells"]] == cells()


def test_code_of_the_notebook(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    names: dict[str, Any] = {}
    exec(QUICKSTART.read_text().replace("(80, 96, 80)", "(40, 48, 40)"), names)
    assert names["aligned"].mean() < names["apart"].mean()
    assert names["after"] < names["before"] / 4
    shown = capsys.readouterr().out
    (fused, eager) = re.findall(
        r"loss ([\d.]+), length of the gradient (\S+)\n.* ([\d.]+) vol", shown
    )
    assert fused[:2] == eager[:2]
    assert float(fused[2]) < 1.2 and float(eager[2]) > 10
