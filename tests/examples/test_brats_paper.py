# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: the page of all systems with its figures, and what is judged of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brats_runs import SMALL, random_data, small_options
from matplotlib.image import imread

from examples.brats import (
    acceptance,
    paper,
    studies,
)
from examples.brats.data.images import Data, load_data
from examples.brats.data.options import DataOptions
from examples.brats.report import figures
from examples.brats.train.records import read_facts
from examples.brats.train.runs import Run

TINY = {**SMALL, "data.phantom_sizes": "4/4/2/3"}


def as_arguments(values: dict[str, object]) -> list[str]:
    text = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in values.items()}
    return [f"{key}={value}" for key, value in text.items()]


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.slow
def test_the_page_of_all_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "paper"
    arguments = ["--preset", "cpu", "--out", str(out), "--jobs", "2", *as_arguments(TINY)]
    assert paper.main(arguments) == 0, capsys.readouterr().err
    text = (out / "README.md").read_text()
    for name, published in paper.PUBLISHED.items():
        assert f"| {name} | 1 | {published} |" in text
    assert "| identity | - | - |" in text
    for picture in ("fields.png", "systems.png", "worst.png", "psnr.png"):
        assert f"]({picture})" in text
        assert imread(out / picture).std() > 0.05
    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    assert systems[3:] == list(paper.SYSTEMS)
    assert len(rows) == 3 * len(systems)
    # The figures can be drawn from what is there: nothing is trained again.
    states = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    assert paper.main([*arguments, "--case", "phantom-0011"]) == 0
    assert states == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    assert "phantom-0011 by every system" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
        (["data.size=30"], "the ResNet needs a data.size that is a multiple of 4, got 30"),
        (["nec"], "options are given as key=value, got 'nec'"),
        (["epz=1"], "there is no option 'epz'"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paper.main([*arguments, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_the_adversarial_term_alone_is_nec_without_its_loss() -> None:
    options = {run.name: run.options for run in paper.plan("cpu", [0], Path("out"), {"eps": 0.2})}
    alone = options["GAN alone"]
    assert alone == replace(options["NEC"], lambda_ngf=0.0, out=alone.out)
    assert all(one.eps == 0.2 for one in options.values())


@pytest.mark.parametrize("preset", paper.SLICE_PRESETS)
def test_all_systems_have_the_same_images_and_protocol(preset: str) -> None:
    planned = paper.plan(preset, [0], Path("out"), {})
    assert len({run.options.data for run in planned}) == 1
    assert len({run.options.metrics for run in planned}) == 1


def test_planes_of_a_volume_are_front_up_or_top_up() -> None:
    volume = np.zeros((3, 5, 3), np.float32)  # left, back, top
    volume[2, 2, 1], volume[1, 4, 1], volume[1, 2, 2] = 1, 2, 3
    image = figures.three_planes(volume)
    gap = [figures.BACKGROUND] * 5
    axial = [[-1, 0, 0, 0, -1]] * 2 + [[-1, 0, 0, 1, -1], [-1, 0, 0, 0, -1], [-1, 0, 2, 0, -1]]
    coronal = [[-1, 0, 3, 0, -1], [-1, 0, 0, 1, -1], [-1, 0, 0, 0, -1]]
    sagittal = [[0, 0, 3, 0, 0], [0, 0, 0, 0, 2], [0, 0, 0, 0, 0]]
    assert image.tolist() == [*axial, gap, gap, *coronal, gap, gap, *sagittal, gap, gap]


def test_density_without_spread_is_left_out(tmp_path: Path) -> None:
    rows: list[Any] = [{"system": "a", "psnr": 20.0}, {"system": "b", "psnr": 20.0}]
    rows += [{"system": "b", "psnr": 22.0 + k} for k in range(3)]
    figures.psnr_distribution(tmp_path / "psnr.png", rows)
    assert (tmp_path / "psnr.png").stat().st_size > 5000


GOOD = {
    "NEC": {
        "psnr": 20,
        "ssim": 0.7,
        "csf_ratio": 0.7,
        "correlation": 0.8,
        "faith": 0.8,
        "tumour_ratio": 0.9,
    },
    "GAN alone": {"psnr": 14, "ssim": 0.3, "faith": 0.6},
    "Pix2Pix": {"psnr": 23},
    "CycleGAN": {"psnr": 13, "csf_ratio": -0.2},
    "CUT": {"psnr": 14},
}


def means(**changes: dict[str, Sequence[float]]) -> dict[tuple[str, int | None], dict[str, float]]:
    """Those of three seeds that meet all criteria, and changes by system, metric and seed."""
    found: dict[tuple[str, int | None], dict[str, float]] = {
        (system, seed): dict(values) for system, values in GOOD.items() for seed in range(3)
    }
    found["identity", None] = {"psnr": 12, "csf_ratio": -0.8}
    for system, metrics in changes.items():
        for metric, values in metrics.items():
            for seed, value in enumerate(values):
                found[system.replace("_", " "), seed][metric] = value
    return found


def missed(**changes: dict[str, Sequence[float]]) -> set[str]:
    return {one.name for one in acceptance.criteria(means(**changes)) if not one.met}


def test_criteria() -> None:
    assert missed() == set()
    assert missed(NEC={"psnr": (18.9, 18.9, 25)}) == {"C1"}  # the median
    assert missed(NEC={"psnr": (25, 20, 17.4)}) == {"C1", "C3"}  # every seed
    assert missed(NEC={"ssim": (0.59, 0.59, 0.9)}) == {"C2"}
    assert missed(GAN_alone={"psnr": (14, 14, 16.6)}) == {"C3"}
    assert missed(GAN_alone={"ssim": (0.3, 0.3, 0.51)}) == {"C3"}
    assert missed(CUT={"psnr": (17.1, 17.1, 0)}) == {"C5"}
    assert missed(CycleGAN={"psnr": (17.1, 17.1, 0)}) == {"C5"}
    assert missed(Pix2Pix={"psnr": (19.9, 19.9, 30)}) == {"C6"}
    assert missed(Pix2Pix={"psnr": (25.1, 25.1, 20)}) == {"C6"}
    assert missed(NEC={"csf_ratio": (0.5, 0.5, 1)}) == {"C7"}
    assert missed(NEC={"correlation": (0.6, 0.6, 1)}) == {"C8"}
    assert missed(NEC={"faith": (0.74, 0.74, 0.9)}) == {"C9"}
    assert missed(GAN_alone={"faith": (0.6, 0.6, 0.69)}) == {"C9"}
    assert missed(NEC={"tumour_ratio": (0.5, 0.5, 1)}) == {"C10"}
    bright = means()
    bright["identity", None] = {"psnr": 15.1, "csf_ratio": 0.1}
    found = acceptance.criteria(bright)
    assert [one.name for one in found if not one.met] == ["C4", "C7"]
    assert "| C4 | NEC - identity, PSNR | 4.9 | >= 5 | **missed** |" in acceptance.table(found)


def test_backends_are_compared_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "load_data", lambda options: random_data())
    monkeypatch.setattr(acceptance, "CURVE_STEPS", 10)
    run = Run("NEC", small_options("nec", steps=100))
    end = {("NEC", 0): {"psnr": 20.0}, ("NEC eager", 0): {"psnr": 21.6}}
    trained, same, free, reordered, final = acceptance.backends(end, run)
    assert trained.high == same.high == 1e-4
    assert same.met and 0 < same.values[0] < 1e-6
    assert free.high == reordered.high == math.inf
    assert not final.met and final.values[0] == pytest.approx(-1.6)


def test_a_study_compares_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"another": ("nec", {"eps": 0.2})}
    make = studies.make_run
    monkeypatch.setattr(studies, "make_run", lambda *values: make(*values, TINY))
    monkeypatch.setitem(studies.STUDIES, "stability", studies.Study(settings))
    assert studies.main(["stability", "--out", str(tmp_path), "--jobs", "2", "--seeds", "0"]) == 0
    text = (tmp_path / "stability.md").read_text()
    assert "| another | nec | `eps=0.2` |" in text and "| another | 1 |" in text
    assert read_facts(tmp_path / "stability" / "another-0")["options"]["eps"] == 0.2


def test_toned_phantom_keeps_the_order_of_intensities() -> None:
    options = DataOptions(size=32, phantom_sizes="1/1/1/1", phantom_target="toned")
    data: Data = load_data(options)
    t1, t2 = data.test.t1[data.test.brain], data.test.t2[data.test.brain]
    order = t1.argsort()
    assert (t2[order].diff() >= -1e-6).all()
    assert t2.mean() < t1.mean() - 0.3
