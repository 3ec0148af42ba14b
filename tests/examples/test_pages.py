# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: options, a sentence for all that is wrong, and from runs to pages and tables."""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from brats_runs import (
    NAMES,
    SYSTEMS,
    TINY,
    VOLUMES,
    as_words,
    by_hand,
    data_options,
    save_subjects,
    volume,
)
from helpers import ROOT
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from examples.brats import acceptance, evaluate, paper, search, studies, swap
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.brats.options import Options, change, make_options, parse
from examples.brats.presets import PRESETS
from examples.brats.report import search as search_report
from examples.brats.report import tables
from examples.brats.report.metrics import MetricOptions, score, summary
from examples.brats.report.search import read_csv
from examples.brats.train.__main__ import main
from examples.brats.train.loop import Trainer
from examples.brats.train.runs import Run, make_run

pytestmark = pytest.mark.usefixtures("own_cache")


class Scaling(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images: Tensor) -> Tensor:
        return self.factor * images


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[float, Options]]:
    """Have runs that are known: the factor by which their generator scales, and their options."""
    monkeypatch.chdir(tmp_path)
    small = {"data.size": 32, "data.phantom_sizes": "3/1/1/6"}
    known = {
        f"{system}-{seed}": (factor, make_options(system, "cpu", small, {"seed": seed}))
        for system, seed, factor in (("nec", 0, -1.0), ("nec", 1, 0.5), ("pix2pix", 0, 0.25))
    }

    def load(folder: Path) -> tuple[nn.Module, Options]:
        if folder.name not in known:
            raise ValueError(f"there is no run {folder}")
        factor, options = known[folder.name]
        return Scaling(factor), options

    for module in (tables, evaluate):
        monkeypatch.setattr(module, "load_generator", load)
    return known


def test_page_and_csv(runs: dict[str, Any], tmp_path: Path) -> None:
    assert evaluate.main(["nec-0", "nec-1", "pix2pix-0", "--out", "page", "--blur", "0.1"]) == 0
    rows = read_csv(tmp_path / "page" / "metrics.csv")
    test = load_data(runs["nec-0"][1].data).test
    page = (tmp_path / "page" / "table.md").read_text()
    mean, deviation = summary(score(0.25 * test.t1, test, MetricOptions(blur=0.1)))["psnr"]
    assert f"| pix2pix | 1 | {mean:.2f} ± {deviation:.2f} | " in page
    seeds = sorted(
        np.mean([float(row["psnr"]) for row in rows if (row["system"], row["seed"]) == key])
        for key in (("nec", "0"), ("nec", "1"))
    )
    assert f"| nec | 2 | {np.mean(seeds):.2f} ({seeds[0]:.2f} to {seeds[1]:.2f}) | " in page
    assert f"| nec | pix2pix | {np.mean(seeds) - mean:+.2f} | " in page


def test_numbers_from_the_files_by_hand(runs: dict[str, Any], root: Path, tmp_path: Path) -> None:
    protocol = MetricOptions(histogram="none", blur=0.8)
    for name, changes in (("slice", {"crop": 12, "size": 12}), ("volume", {"dimensions": 3})):
        options = replace(runs["nec-0"][1], data=data_options(root, **changes), metrics=protocol)
        runs[name] = -0.5, options
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


def test_refuses_in_one_sentence(runs: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    runs["again"] = runs["nec-0"]
    factor, options = runs["nec-1"]
    runs["other"] = factor, replace(options, data=replace(options.data, size=48, seed=1))
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
    assert main(["nec", "--preset", "volumes", *as_words(own)]) == 0
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


def train_here(runs: list[Run], jobs: int) -> None:
    for run in runs:
        last = run.options.folder / "last.pt"
        Trainer(run.options, load_data(run.options.data), resume=last.exists()).fit()


def test_acceptance_and_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny runs, trained in this process: the criteria are all there, and most of them missed."""
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
    monkeypatch.setattr(search_report, "BY_STEPS", ("tiny lambda_ngf=2",))
    assert search.main(["--page", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    psnr = float(best["psnr"])
    assert f"| tiny lambda_ngf=2 | 9.5 | luck | {psnr:.1f} |" in page
    assert f"| tiny lambda_ngf=2 | 0 | {psnr:.2f} |" in page
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_examples_import_no_benchmarks() -> None:
    for path in (ROOT / "examples").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) benchmarks\b", path.read_text("utf-8"), re.M), path


def test_presets_survive_json() -> None:
    for name, preset in PRESETS.items():
        for system in preset or SYSTEMS:
            options = make_options(system, name)
            assert change(Options(), json.loads(json.dumps(asdict(options)))) == options


def test_later_layers_win(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"eps": 0.3, "batch": 4, "data": {"size": 32}, "unet_channels": [8, 16]}')
    words = ["nec", "--config", str(config), "eps=0.2", "--preset", "cpu", "data.upper=99.9"]
    options, _ = parse(words)
    assert (options.preset, options.eps, options.batch) == ("cpu", 0.2, 4)
    assert (options.data.size, options.data.upper) == (32, 99.9)
    assert options.unet_channels == (8, 16)
    assert options.lambda_ngf == 10.0  # the preset's


def test_resume_takes_the_options_of_the_run(tmp_path: Path) -> None:
    saved = make_options("cut", "cpu", {"seed": 3})
    (tmp_path / "run.json").write_text(json.dumps({"options": asdict(saved)}))
    options, resume = parse(["--resume", str(tmp_path), "device=cpu"])
    assert resume
    assert options == change(saved, {"device": "cpu", "out": str(tmp_path)})
    with pytest.raises(ValueError, match="is a run of cut, not of nec"):
        parse(["nec", "--resume", str(tmp_path)])


SENTENCES = (
    (main, ["munit"], "the system must be one of nec, pix2pix, cyclegan, cut, got 'munit'"),
    (
        main,
        ["nec", "lamda_ngf=1"],
        "there is no option 'lamda_ngf': did you mean lambda_ngf or",
    ),
    (main, ["nec", "eps=nan"], "eps must be a positive number, got 'nan'"),
    (
        main,
        ["nec", "--loss-backend", "slow"],
        "loss_backend must be one of fused, eager, compiled",
    ),
    (main, ["nec", "delay=soon"], "delay must be a number in [0, 1] or auto, got 'soon'"),
    (main, ["nec", "delay_steps=9,3"], "delay_steps must ascend, got 9,3"),
    (
        main,
        ["nec", "form=cross", "eps_mode=augmented"],
        "form=cross needs eps_mode=additive or",
    ),
    (search.main, ["--only", "luck"], "there is no setting 'luck': --list names them all"),
    (main, ["nec", "unet_channels=8"], "unet_channels must name the channels of two levels"),
    (main, ["nec", "--preset", "volumes", "antialias=true"], "the blur of antialias is for slices"),
    (main, ["cut", "checkpointing=true"], "checkpointing is of the U-Net's levels"),
    (main, ["nec", "data.size=16", "ngf_scales=5"], "ngf_scales must leave an edge of two pixels"),
    (
        main,
        ["--resume", "x", "epochs=3"],
        "a run goes on to a step: give steps in place of epochs",
    ),
    (main, ["nec", "--config", "nowhere.json"], "nowhere.json cannot be read as JSON: "),
    (paper.main, ["--jobs", "0"], "jobs must be at least 1, got 0"),
    (paper.main, ["data.size=30"], "the ResNet needs a data.size that is a multiple of 4, got 30"),
    (swap.main, ["--steps", "0"], "steps must be at least 1, got 0"),
    (swap.main, ["generator=resnet"], "the ResNet is for slices: "),
)


def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command, words, sentence in SENTENCES:
        assert command(words) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {sentence}"), printed
        assert printed.count("\n") == 1


def test_swap_times_each_backend_at_each_size(tmp_path: Path) -> None:
    small = "unet_channels=4,8", "unet_units=1", "discriminator_channels=4", "amp=none"
    asked = "--patches", "24,16", "--backends", "eager,fused", "--steps", "1"
    assert swap.main([*small, "device=cpu", *asked, "--out", str(tmp_path)]) == 0
    rows = read_csv(tmp_path / "swap.csv")
    found = [(row["patch"], row["loss"]) for row in rows]
    assert found == [("24", "eager"), ("16", "eager"), ("24", "fused"), ("16", "fused")]
    assert all(0 < float(row["loss_ms"]) < float(row["step_ms"]) for row in rows)
