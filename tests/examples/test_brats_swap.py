# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/swap.py: what the NGF loss takes of a step in 3D."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from examples.brats import swap
from examples.brats.model.systems.base import Losses
from examples.brats.train.learner import Learner

pytestmark = pytest.mark.usefixtures("own_cache")
TINY = (
    *("unet_channels=4,8", "unet_units=1", "discriminator_channels=4", "amp=none"),
    *("device=cpu", "--patches", "24,16", "--backends", "eager,fused", "--steps", "1"),
)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "swap.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_for_each_backend_and_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swap.main([*TINY, "--out", str(tmp_path)]) == 0
    found = {(row["patch"], row["loss"]): row for row in rows(tmp_path)}
    assert list(found) == [("24", "eager"), ("16", "eager"), ("24", "fused"), ("16", "fused")]
    for row in found.values():
        assert 0 < float(row["loss_ms"]) < float(row["step_ms"])
        assert row["memory_mb"] == row["loss_mb"] == ""  # of a process that has done other things
    text = (tmp_path / "swap.md").read_text()
    assert text in capsys.readouterr().out
    lines = [line.split(" | ") for line in text.splitlines() if "³" in line]
    assert [line[:2] for line in lines] == [
        [f"| {size}³", loss] for size in (16, 24) for loss in ("fused", "eager")
    ]
    step = {name: float(found["16", name]["step_ms"]) for name in ("eager", "fused")}
    assert lines[0][3] == "1.000"
    assert lines[1][3] == f"{step['eager'] / step['fused']:.3f}"


def test_what_does_not_fit_is_a_line_without_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.learn

    def little_memory(self: Learner, step: int, *images: torch.Tensor) -> Losses:
        if images[0].shape[-1] > 16:
            raise torch.OutOfMemoryError
        return learn(self, step, *images)

    monkeypatch.setattr(Learner, "learn", little_memory)
    assert swap.main([*TINY, "--backends", "fused", "--out", str(tmp_path)]) == 0
    assert [row["patch"] for row in rows(tmp_path) if not row["step_ms"]] == ["24"]
    assert (tmp_path / "swap.md").read_text().count("| out of memory |") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["fast"], "options are given as key=value, got 'fast'"),
        (["--backends", "eager,quick"], "loss_backend must be one of "),
        (["generator=resnet"], "the ResNet is for slices: "),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert swap.main([*TINY, *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {sentence}")
    assert error.count("\n") == 1
