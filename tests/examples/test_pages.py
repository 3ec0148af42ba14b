# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: from runs to pages and tables."""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from brats_runs import (
    NAMES,
    TINY,
    VOLUMES,
    as_words,
    by_hand,
    data_options,
    read_csv,
    save_subjects,
    volume,
)
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from examples.brats import acceptance, evaluate, paper, search, studies
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.brats.report import search as search_report
from examples.brats.report import tables
from examples.brats.report.metrics import MetricOptions, score, summary
from examples.brats.train import __main__ as train
from examples.brats.train.loop import Trainer
from examples.brats.train.runs import Run, make_run

pytestmark = pytest.mark.usefixtures("own_cache")


class Scaling(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


@dataclass(frozen=True)
class Known:
    system: str
    seed: int
    factor: float
    data: DataOptions = field(default_factory=DataOptions)
    metrics: MetricOptions = field(default_factory=MetricOptions)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Known]:
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


def test_page_and_csv(runs: dict[str, Known], tmp_path: Path) -> None:
    assert evaluate.main(["nec-0", "nec-1", "pix2pix-0", "--out", "page", "--blur", "0.1"]) == 0
    rows = read_csv(tmp_path / "page" / "metrics.csv")
    test = load_data(runs["nec-0"].data).test
    page = (tmp_path / "page" / "table.md").read_text()
    mean, deviation = summary(score(0.25 * test.t1, test, MetricOptions(blur=0.1)))["psnr"]
    assert f"| pix2pix | 1 | {mean:.2f} ± {deviation:.2f} | " in page
    seeds = sorted(
        np.mean([float(row["psnr"]) for row in rows if (row["system"], row["seed"]) == key])
        for key in (("nec", "0"), ("nec", "1"))
    )
    assert f"| nec | 2 | {np.mean(seeds):.2f} ({seeds[0]:.2f} to {seeds[1]:.2f}) | " in page
    assert f"| nec | pix2pix | {np.mean(seeds) - mean:+.2f} | " in page


def test_numbers_from_the_files_by_hand(runs: dict[str, Known], root: Path, tmp_path: Path) -> None:
    protocol = MetricOptions(histogram="none", blur=0.8)
    for name, changes in (("slice", {"crop": 12, "size": 12}), ("volume", {"dimensions": 3})):
        runs[name] = Known(name, 0, -0.5, data_options(root, **changes), protocol)
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
    for words, sentence in (
        ("nec-0 again", ".*nec-0 and again are both nec with seed 0: tell them apart"),
        ("nec-0 other", "other was trained on other data than the first run: size, seed"),
        ("nec-9", "there is no run nec-9"),
        ("nec-0 nec-1 --volume a.nii b.nii", "--volume needs exactly one RUN"),
        ("nec-0 --blur -1", "blur must not be negative"),
    ):
        assert evaluate.main(words.split()) == 1
        assert re.fullmatch(f"error: {sentence}.*\n", capsys.readouterr().err), words


def test_volumes_from_files_to_a_page(root: Path, tmp_path: Path) -> None:
    save_subjects(root, (16, 16, 12))  # larger than the window of SSIM
    run, page, out = (tmp_path / name for name in ("run", "page", "t2.nii.gz"))
    own = {**TINY, **VOLUMES, "device": "cpu", "amp": "none", "ema": 0, "delay": 0, "workers": 1}
    own |= {"data.data": root, "data.split": "1/2/1/1", "out": run, "steps": 1, "accumulate": 2}
    assert train.main(["nec", "--preset", "volumes", *as_words(own)]) == 0
    assert evaluate.main([str(run), f"other={run}", "--out", str(page)]) == 0
    assert "| other | 1 |" in (page / "table.md").read_text()
    assert (page / "planes.png").stat().st_size > 1000
    t1 = root / NAMES[4] / f"{NAMES[4]}-t1n.nii.gz"
    assert evaluate.main([str(run), "--volume", str(t1), str(out)]) == 0
    assert nibabel.load(out).shape == (16, 16, 12)


@pytest.mark.slow
def test_the_page_of_all_systems(tmp_path: Path) -> None:
    arguments = ["--preset", "cpu", "--out", str(tmp_path), "--jobs", "2", *as_words(TINY)]
    assert paper.main(arguments) == 0
    text = (tmp_path / "README.md").read_text()
    for name, published in paper.PUBLISHED.items():
        assert f"| {name} | 1 | {published} |" in text
    assert len(read_csv(tmp_path / "metrics.csv")) == 3 * (3 + len(paper.SYSTEMS))


def test_systems_differ_in_nothing_but_themselves() -> None:
    options = {run.name: run.options for run in paper.plan("cpu", [0], Path("out"), {"eps": 0.2})}
    alone = options["GAN alone"]
    assert alone == replace(options["NEC"], lambda_ngf=0.0, out=alone.out)
    assert all(one.eps == 0.2 for one in options.values())
    for preset in paper.SLICE_PRESETS:
        planned = paper.plan(preset, [0], Path("out"), {})
        assert len({(run.options.data, run.options.metrics) for run in planned}) == 1
    assert [run.name for run in paper.plan("gpu", [0], Path("out"), {})] == [
        "NEC",
        "Pix2Pix",
        "GAN alone",
    ]


def test_acceptance_and_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny runs, trained in this process: the criteria are all there, and most of them missed."""

    def train_here(runs: list[Run], jobs: int) -> None:
        for run in runs:
            Trainer(run.options, load_data(run.options.data)).fit()

    small = {**TINY, "steps": 1}
    for module in (acceptance, studies):
        monkeypatch.setattr(module, "train_all", train_here)
    monkeypatch.setattr(studies, "STUDIES", {"tiny": studies.Study({"alone": ("nec", {})}, small)})
    assert studies.main(["tiny", "--seeds", "0", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "tiny.md").read_text()
    assert "| alone | nec | `data.size=32 " in page and "| alone | 1 |" in page

    plan, tiny = paper.plan, lambda *given: make_run(*given, small)
    monkeypatch.setattr(paper, "plan", lambda *given: plan(*given[:3], small))
    monkeypatch.setattr(acceptance, "make_run", tiny)
    monkeypatch.setattr(acceptance, "SEEDS", (0,))
    monkeypatch.setattr(acceptance, "CURVE_STEPS", 2)
    assert acceptance.main(["--out", str(tmp_path), "--jobs", "1"]) == 1
    page = (tmp_path / "acceptance.md").read_text()
    assert all(f"| C{number} | " in page for number in range(1, 13))
    assert re.search(
        r"\| fused / eager loss on the same images, 2 steps \| \S+ \| <= 0.0001 \| met", page
    )


def test_search_logs_a_line_and_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_here(runs: list[Run], jobs: int) -> None:
        for run in runs:
            last = run.options.folder / "last.pt"
            Trainer(run.options, load_data(run.options.data), resume=last.exists()).fit()

    monkeypatch.setattr(search, "train_all", train_here)
    monkeypatch.setattr(search, "PRESET", "cpu")
    monkeypatch.setattr(search, "STEPS", TINY)
    monkeypatch.setitem(
        search.SETTINGS, "tiny", ("nec", {"delay": "auto", "ramp": 0.0, "delay_steps": (0, 2)})
    )
    words = ["--only", "tiny", "--seed", "0", "lambda_ngf=2", "--out", str(tmp_path)]
    for _ in range(2):  # the second time it is there already
        assert search.main(words) == 0
    *free, line = read_csv(tmp_path / "log.csv")
    assert [row["name"] for row in free][-1] == "best intensity map, 32 pixels"
    assert len(free) == 3
    curve = read_csv(tmp_path / "curves" / "tiny-lambda_ngf-2-0.csv")
    assert [row["step"] for row in curve] == ["0", "2", "4"]
    assert curve[0]["ngf_weight"] == "0"
    assert (line["name"], line["seed"]) == ("tiny lambda_ngf=2", "0")
    assert line["options"] == "delay=auto ramp=0.0 delay_steps=0,2 lambda_ngf=2"
    assert (line["images"], line["subjects"], line["seen"]) == ("4", "4", "8")
    assert line["onset"] == "3"  # the first step that has the loss, as steps count from 1
    best = next(row for row in curve if row["step"] == line["best_step"])
    assert line["psnr"] == best["psnr"]
    test = load_data(DataOptions(size=32, phantom_sizes="4/4/2/3"))
    mean = summary(
        score(
            test.validation.t1,
            test.validation,
            MetricOptions(blur_unit="px", ssim_window="gaussian"),
        )
    )
    assert float(free[0]["psnr"]) == pytest.approx(mean["psnr"].mean, rel=1e-4)
    (tmp_path / "predictions.csv").write_text("name,predicted,why\ntiny lambda_ngf=2,9.5,luck\n")
    monkeypatch.setattr(search_report, "BY_SUBJECTS", ("tiny lambda_ngf=2",))
    assert search.main(["--page", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    assert re.search(
        rf"\| tiny lambda_ngf=2 \| 0 \| .* \| 9.5 \| luck \| {float(best['psnr']):.2f} \|", page
    )
    assert (tmp_path / "curves.png").stat().st_size > 0
