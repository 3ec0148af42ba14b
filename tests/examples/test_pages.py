# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: from runs to pages, tables and figures, and what is judged of them."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from brats_files import NAMES, by_hand, options, save_subjects, volume
from brats_runs import TINY, VOLUMES, as_words, random_data, small_options
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from examples.brats import acceptance, evaluate, paper, studies
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.brats.report import figures, tables
from examples.brats.report.metrics import METRICS, MetricOptions, score, summary
from examples.brats.train import __main__ as train
from examples.brats.train.records import read_facts
from examples.brats.train.runs import Run

pytestmark = pytest.mark.usefixtures("own_cache")
FREE = ["identity", "negation in the brain", "best intensity map"]


class Scaling(nn.Module):
    """A generator that is known: a multiple of its input."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


@dataclass(frozen=True)
class Known:
    """The part of a run's options that evaluation looks at."""

    system: str
    seed: int
    factor: float
    data: DataOptions = field(default_factory=DataOptions)
    metrics: MetricOptions = field(default_factory=MetricOptions)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Known]:
    """Name runs by their folder; a test may change them."""
    monkeypatch.chdir(tmp_path)
    data = DataOptions(size=32, phantom_sizes="3/1/1/6")
    known = {
        "nec-0": Known("nec", 0, -1.0, data),
        "nec-1": Known("nec", 1, 0.5, data),
        "pix2pix-0": Known("pix2pix", 0, 0.25, data),
    }

    def load(folder: Path) -> tuple[nn.Module, Known]:
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
    runs: dict[str, Known], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
            filled = {metric: float(row[metric]) for metric in METRICS if row[metric]}
            wanted = {metric: numbers[metric] for metric in METRICS if numbers[metric] is not None}
            assert filled == pytest.approx(wanted, rel=1e-4, abs=1e-5)

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

    # Significance of all pairs of systems.
    gain = np.mean(seeds) - mean
    assert f"| nec | pix2pix | {gain:+.2f} | " in page
    assert "| pix2pix | nec |" not in page
    assert "by subject (n = 6)" in page
    assert "this n allows is 3.1e-02" in page
    assert not any(f"| {name} |" in page.split("| first |")[1] for name in FREE)


def test_numbers_from_the_files_by_hand(runs: dict[str, Known], root: Path, tmp_path: Path) -> None:
    """Compute a subject's PSNR from its two files, by nothing but the protocol."""
    protocol = MetricOptions(histogram="none", blur=0.8)
    for name, changes in (("slice", {"crop": 12, "size": 12}), ("volume", {"dimensions": 3})):
        runs[name] = Known(name, 0, -0.5, options(root, **changes), protocol)
        if name == "volume":  # larger than the window of SSIM
            save_subjects(root, (16, 16, 12))
        assert evaluate.main([name, "--out", name]) == 0
        t1, t2 = (volume(k, (16, 16, 12) if name == "volume" else (16, 16, 6)) for k in (8, 9))
        box = np.s_[2:14, 3:14, :] if name == "volume" else np.s_[2:14, 2:14]
        if name == "slice":
            t1, t2 = t1[:, :, 2], t2[:, :, 2]
        fake = gaussian_filter(-0.5 * by_hand(t1, t1)[box], 0.8)
        brain = ((t1 > 0) | (t2 > 0))[box]
        error = np.square(fake - by_hand(t2, t2)[box])
        (row,) = (row for row in read_csv(tmp_path / name / "metrics.csv") if row["seed"])
        assert row["id"] == NAMES[4]
        for metric, values in (("psnr", error), ("psnr_brain", error[brain])):
            expected = 10 * math.log10(4 / values.mean())
            assert float(row[metric]) == pytest.approx(expected, abs=1e-3), metric


def test_refuses_in_one_sentence(
    runs: dict[str, Known], capsys: pytest.CaptureFixture[str]
) -> None:
    runs["again"] = runs["nec-0"]
    runs["other"] = replace(runs["nec-1"], data=replace(runs["nec-1"].data, size=48, seed=1))
    runs["lost"] = replace(runs["nec-0"], data=DataOptions(data="/nowhere"))
    for words, sentence in (
        ("nec-0 again", ".*nec-0 and again are both nec with seed 0: tell them apart"),
        ("nec-0 other", "other was trained on other data than the first run: size, seed"),
        ("nec-9", "there is no run nec-9"),
        ("nec-0 --blur -1", "blur must not be negative"),
        ("nec-0 nec-1 --volume a.nii b.nii", "--volume needs exactly one RUN"),
        ("nec-0 --volume a.nii b.nii", "a.nii does not exist"),
        ("lost", "/nowhere is not a folder"),
    ):
        assert evaluate.main(words.split()) == 1
        assert re.fullmatch(f"error: {sentence}.*\n", capsys.readouterr().err), words


def test_volumes_from_files_to_a_page(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_subjects(root, (16, 16, 12))  # larger than the window of SSIM
    run, page, out = (tmp_path / name for name in ("run", "page", "t2.nii.gz"))
    own = {**TINY, **VOLUMES, "device": "cpu", "amp": "none", "ema": 0, "delay": 0, "workers": 1}
    own |= {"data.data": root, "data.split": "1/2/1/1", "out": run, "steps": 1, "accumulate": 2}
    assert train.main(["nec", "--preset", "volumes", *as_words(own)]) == 0
    assert evaluate.main([str(run), f"other={run}", "--out", str(page)]) == 0
    text = (page / "table.md").read_text()
    assert text.startswith(
        "1 test images of 1 subjects, volumes up to 12 x 11 x 12 voxels of 1 mm."
    )
    assert "| other | 1 |" in text
    assert (page / "planes.png").stat().st_size > 1000
    assert evaluate.main([str(run), "--out", str(page), "--case", "another"]) == 1
    error = capsys.readouterr().err
    assert error.endswith(f"error: there is no test image another: they are {NAMES[4]}\n")
    t1 = root / NAMES[4] / f"{NAMES[4]}-t1n.nii.gz"
    assert evaluate.main([str(run), "--volume", str(t1), str(out)]) == 0
    assert nibabel.load(out).shape == (16, 16, 12)


@pytest.mark.slow
def test_the_page_of_all_systems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "paper"
    arguments = ["--preset", "cpu", "--out", str(out), "--jobs", "2", *as_words(TINY)]
    assert paper.main(arguments) == 0, capsys.readouterr().err
    text = (out / "README.md").read_text()
    for name, published in paper.PUBLISHED.items():
        assert f"| {name} | 1 | {published} |" in text
    assert "| identity | - | - |" in text
    for picture in ("fields.png", "systems.png", "worst.png", "psnr.png"):
        assert f"]({picture})" in text
        assert imread(out / picture).std() > 0.05
    rows = read_csv(out / "metrics.csv")
    systems = list(dict.fromkeys(row["system"] for row in rows))
    assert systems[3:] == list(paper.SYSTEMS)
    assert len(rows) == 3 * len(systems)
    # The figures can be drawn from what is there: nothing is trained again.
    states = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    assert paper.main([*arguments, "--case", "phantom-0011"]) == 0
    assert states == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/last.pt")}
    assert "phantom-0011 by every system" in (out / "README.md").read_text()


@pytest.mark.slow
def test_a_study_compares_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"another": ("nec", {"eps": 0.2})}
    make = studies.make_run
    monkeypatch.setattr(studies, "make_run", lambda *values: make(*values, TINY))
    monkeypatch.setitem(studies.STUDIES, "stability", studies.Study(settings))
    assert studies.main(["stability", "--out", str(tmp_path), "--jobs", "2", "--seeds", "0"]) == 0
    text = (tmp_path / "stability.md").read_text()
    assert "| another | nec | `eps=0.2` |" in text and "| another | 1 |" in text
    assert read_facts(tmp_path / "stability" / "another-0")["options"]["eps"] == 0.2


def test_systems_differ_in_nothing_but_themselves() -> None:
    options = {run.name: run.options for run in paper.plan("cpu", [0], Path("out"), {"eps": 0.2})}
    alone = options["GAN alone"]
    assert alone == replace(options["NEC"], lambda_ngf=0.0, out=alone.out)
    assert all(one.eps == 0.2 for one in options.values())
    for preset in paper.SLICE_PRESETS:
        planned = paper.plan(preset, [0], Path("out"), {})
        assert len({(run.options.data, run.options.metrics) for run in planned}) == 1


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


# --- Acceptance -----------------------------------------------------------------------------------

NEC = {"psnr": 20, "ssim": 0.7, "csf_ratio": 0.7, "correlation": 0.8, "faith": 0.8}
GOOD = {
    "NEC": {**NEC, "tumour_ratio": 0.9},
    "GAN alone": {"psnr": 14, "ssim": 0.3, "faith": 0.6},
    "Pix2Pix": {"psnr": 23},
    "CycleGAN": {"psnr": 13, "csf_ratio": -0.2},
    "CUT": {"psnr": 14},
}


def missed(system: str, metric: str, *values: float) -> set[str]:
    """Judge three seeds that meet all criteria but for these values."""
    means: dict[tuple[str, int | None], dict[str, float]] = {
        (name, seed): dict(values) for name, values in GOOD.items() for seed in range(3)
    }
    means["identity", None] = {"psnr": 12, "csf_ratio": -0.8}
    for seed, value in enumerate(values) if len(values) > 1 else [(None, values[0])]:
        means[system, seed][metric] = value
    found = acceptance.criteria(means)
    wrong = {one.name for one in found if not one.met}
    assert acceptance.table(found).count("**missed**") >= len(wrong)
    return wrong


CHANGES = [
    ("", ("NEC", "psnr", 20, 20, 20)),
    ("C1", ("NEC", "psnr", 18.9, 18.9, 25)),  # the median
    ("C1 C3", ("NEC", "psnr", 25, 20, 17.4)),  # every seed
    ("C2", ("NEC", "ssim", 0.59, 0.59, 0.9)),
    ("C3", ("GAN alone", "psnr", 14, 14, 16.6)),
    ("C3", ("GAN alone", "ssim", 0.3, 0.3, 0.51)),
    ("C4", ("identity", "psnr", 15.1)),
    ("C5", ("CUT", "psnr", 17.1, 17.1, 0)),
    ("C5", ("CycleGAN", "psnr", 17.1, 17.1, 0)),
    ("C6", ("Pix2Pix", "psnr", 19.9, 19.9, 30)),
    ("C6", ("Pix2Pix", "psnr", 25.1, 25.1, 20)),
    ("C7", ("NEC", "csf_ratio", 0.5, 0.5, 1)),
    ("C7", ("identity", "csf_ratio", 0.1)),
    ("C8", ("NEC", "correlation", 0.6, 0.6, 1)),
    ("C9", ("NEC", "faith", 0.74, 0.74, 0.9)),
    ("C9", ("GAN alone", "faith", 0.6, 0.6, 0.69)),
    ("C10", ("NEC", "tumour_ratio", 0.5, 0.5, 1)),
]


def test_criteria() -> None:
    for expected, change in CHANGES:
        assert missed(*change) == set(expected.split()), change


def test_backends_are_compared_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptance, "load_data", lambda options: random_data())
    monkeypatch.setattr(acceptance, "CURVE_STEPS", 4)
    run = Run("NEC", small_options("nec", steps=100))
    end = {("NEC", 0): {"psnr": 20.0}, ("NEC eager", 0): {"psnr": 21.6}}
    trained, same, free, reordered, final = acceptance.backends(end, run)
    assert trained.high == same.high == 1e-4
    assert same.met and 0 < same.values[0] < 1e-6
    assert free.high == reordered.high == math.inf
    assert not final.met and final.values[0] == pytest.approx(-1.6)
