# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The two examples that are one file: a small run of each, on what it prints and draws."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from examples import register_pair, synthesis
from examples.registration.warp import warp


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
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("t1", "t2")]
    for path, image in zip(files, (np.where(head > 0, 9 - head, 0), head), strict=True):
        nibabel.save(nibabel.Nifti1Image(image, affine), path)
    words = [*files, "--levels", "1", "--steps", "1", "--out", str(tmp_path)]
    assert register_pair.main(words) == 0
    moved = nibabel.load(tmp_path / "registered.nii.gz")
    np.testing.assert_allclose(moved.affine, affine)
