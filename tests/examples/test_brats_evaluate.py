# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: the page and the table of metrics, from runs to files."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brats_files import save, volume
from torch import Tensor, nn

from examples.brats import evaluate
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.brats.report import tables
from examples.brats.report.metrics import METRICS, MetricOptions, score, summary

FREE = ["identity", "negation in the brain", "best intensity map"]


class Scaling(nn.Module):
    """A generator that is known: a multiple of its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


@dataclass(frozen=True)
class Run:
    """As much of a run's options as evaluation looks at."""

    system: str
    seed: int
    factor: float
    data: DataOptions = field(default_factory=DataOptions)
    metrics: MetricOptions = field(default_factory=MetricOptions)


@pytest.fixture
def runs(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Run]:
    """Runs by name of their folder, to be changed by a test."""
    monkeypatch.chdir(tmp_path)
    data = DataOptions(size=32, phantom_sizes="3/1/1/6")
    known = {
        "nec-0": Run("nec", 0, -1.0, data),
        "nec-1": Run("nec", 1, 0.5, data),
        "pix2pix-0": Run("pix2pix", 0, 0.25, data),
    }

    def load(folder: Path) -> tuple[nn.Module, Run]:
        if folder.name not in known:
            raise ValueError(f"there is no run {folder}")
        run = known[folder.name]
        return Scaling(run.factor), run

    for module in (tables, evaluate):
        monkeypatch.setattr(module, "load_generator", load)
    return known


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_page_and_csv(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["nec-0", "nec-1", "pix2pix-0", "--out", "page", "--blur", "0.1"]) == 0
    rows = read_csv(tmp_path / "page" / "metrics.csv")
    assert list(rows[0]) == ["system", "seed", "id", *METRICS]
    found = [(row["system"], row["seed"]) for row in rows]
    systems = [*((name, "") for name in FREE), ("nec", "0"), ("nec", "1"), ("pix2pix", "0")]
    assert found == [key for key in systems for _ in range(6)]
    assert {row["id"] for row in rows} == {f"phantom-{k:04d}" for k in range(5, 11)}

    # Every line anew, from the images.
    test = load_data(runs["nec-0"].data).test
    for name, factor in (("nec", 0.5), ("pix2pix", 0.25)):
        expected = score(factor * test.t1, test, MetricOptions(blur=0.1))
        own = [row for row in rows if row["system"] == name][-6:]
        for row, numbers in zip(own, expected, strict=True):
            for metric in METRICS:
                if numbers[metric] is None:
                    assert row[metric] == ""
                else:
                    assert float(row[metric]) == pytest.approx(numbers[metric], rel=1e-4, abs=1e-5)

    page = (tmp_path / "page" / "table.md").read_text()
    assert page in capsys.readouterr().out
    assert page.startswith("6 test images of 6 subjects, 32 x 32 pixels of 6 mm.")
    assert "a Gaussian of 0.1 mm" in page
    lines = {
        line.split(" | ")[0][2:]: line.split(" | ")
        for line in page.split("| first |")[0].splitlines()
    }
    identity, pix2pix = lines["identity"], lines["pix2pix"]
    assert (identity[1], pix2pix[1], lines["nec"][1]) == ("-", "1", "2")
    mean, deviation = summary(score(0.25 * test.t1, test, MetricOptions(blur=0.1)))["psnr"]
    assert pix2pix[2] == f"{mean:.2f} ± {deviation:.2f}"
    seeds = sorted(
        np.mean([float(row["psnr"]) for row in rows if (row["system"], row["seed"]) == key])
        for key in (("nec", "0"), ("nec", "1"))
    )
    assert lines["nec"][2] == f"{np.mean(seeds):.2f} ({seeds[0]:.2f} to {seeds[1]:.2f})"
    assert identity[8] == "0%"  # CSF inverted
    share = np.mean([float(row["csf_inverted"]) for row in rows if row["system"] == "pix2pix"])
    assert pix2pix[8] == f"{share:.0%}"


def test_significance_of_all_pairs(runs: dict[str, Run], tmp_path: Path) -> None:
    runs["cut-0"] = replace(runs["pix2pix-0"], system="cut")
    assert evaluate.main(["nec-0", "pix2pix-0", "cut-0", "--out", "page"]) == 0
    page = (tmp_path / "page" / "table.md").read_text()
    rows = read_csv(tmp_path / "page" / "metrics.csv")
    psnr = {
        name: np.mean([float(row["psnr"]) for row in rows if row["system"] == name])
        for name in ("nec", "pix2pix")
    }
    gain = f"{psnr['nec'] - psnr['pix2pix']:+.2f}"
    assert f"| nec | pix2pix | {gain} | " in page
    assert "| pix2pix | cut | +0.00 | 1.0e+00 | +0.000 | 1.0e+00 |" in page
    assert "| pix2pix | nec |" not in page
    assert "by subject (n = 6)" in page
    assert "this n allows is 3.1e-02" in page
    assert not any(f"| {name} |" in page.split("| first |")[1] for name in FREE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nec-0", "again"], "nec-0 and again are both nec with seed 0: tell them apart"),
        (["nec-0", "other"], "other was trained on other data than the first run: size, seed"),
        (["nec-9"], "there is no run nec-9"),
        (["nec-0", "--blur", "-1"], "blur must not be negative"),
        (["nec-0", "nec-1", "--volume", "a.nii", "b.nii"], "--volume needs exactly one RUN"),
        (["nec-0", "--volume", "a.nii", "b.nii"], "a.nii does not exist"),
        (["lost"], "/nowhere is not a folder"),
    ],
)
def test_refuses_in_one_sentence(
    runs: dict[str, Run],
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs["again"] = runs["nec-0"]
    runs["other"] = replace(
        runs["nec-1"], data=DataOptions(size=48, phantom_sizes="3/1/1/6", seed=1)
    )
    runs["lost"] = replace(runs["nec-0"], data=DataOptions(data="/nowhere"))
    assert evaluate.main(arguments) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(f"error: .*{re.escape(message)}.*\n", error)


def test_volume(runs: dict[str, Run], tmp_path: Path) -> None:
    runs["brats"] = Run("nec", 0, -0.5, DataOptions(size=16))
    save(tmp_path / "t1.nii.gz", volume(0))
    assert evaluate.main(["brats", "--volume", "t1.nii.gz", "t2.nii.gz"]) == 0
    result = nibabel.load(tmp_path / "t2.nii.gz")
    np.testing.assert_array_equal(result.affine, np.diag([-1, -1, 1, 1]))
    assert result.get_fdata().min() == pytest.approx(-0.5)
    assert math.isclose(result.get_fdata()[0, 0, 0], 0.5)
