# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: options and their layers, a sentence for all that is wrong, and swap.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from brats_runs import SYSTEMS

from examples.brats import paper, swap
from examples.brats.model.systems.base import Losses
from examples.brats.options import Options, change, make_options, parse
from examples.brats.presets import PRESETS
from examples.brats.train.__main__ import main
from examples.brats.train.learner import Learner

pytestmark = pytest.mark.usefixtures("own_cache")


def test_presets_survive_json() -> None:
    for name, preset in PRESETS.items():
        for system in preset or SYSTEMS:
            options = make_options(system, name)
            assert (options.system, options.preset) == (system, name)
            assert change(Options(), json.loads(json.dumps(asdict(options)))) == options


def test_defaults_are_the_papers() -> None:
    options, resume = parse(["nec"])
    assert options == Options()
    assert not resume
    assert options.folder == Path("out/brats/nec")
    assert (options.lambda_ngf, options.eps) == (1.0, 0.15)
    assert (options.eps_mode, options.operator) == ("quadrature", "sobel")


def test_later_layers_win(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"eps": 0.3, "batch": 4, "data": {"size": 32}, "unet_channels": [8, 16]}')
    words = ["nec", "--config", str(config), "eps=0.2", "--preset", "cpu", "data.upper=99.9"]
    options, _ = parse(words)
    assert (options.preset, options.eps, options.batch) == ("cpu", 0.2, 4)
    assert (options.data.size, options.data.upper) == (32, 99.9)
    assert options.unet_channels == (8, 16)
    assert options.lambda_ngf == 10.0  # the preset's


def test_the_same_in_other_words(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"system": "cut", "preset": "cpu", "nce_identity": false}')
    expected = make_options("cut", "cpu", {"nce_identity": False, "loss_backend": "eager"})
    for words in (
        ["--config", str(config), "--loss-backend", "eager"],
        ["cut", "preset=cpu", "nce_identity=false", "loss_backend=eager"],
        ["--preset", "cpu", "nce_identity=false", "cut", "loss_backend=eager"],
    ):
        assert parse(words)[0] == expected


def test_resume_takes_the_options_of_the_run(tmp_path: Path) -> None:
    saved = make_options("cut", "cpu", {"seed": 3})
    (tmp_path / "run.json").write_text(json.dumps({"options": asdict(saved)}))
    options, resume = parse(["--resume", str(tmp_path), "device=cpu"])
    assert resume
    assert options == change(saved, {"device": "cpu", "out": str(tmp_path)})
    assert parse(["cut", "--resume", str(tmp_path)])[0].seed == 3
    with pytest.raises(ValueError, match="is a run of cut, not of nec"):
        parse(["nec", "--resume", str(tmp_path)])


SENTENCES = {
    main: [
        ([], "name one system, of nec, pix2pix, cyclegan, cut: got None"),
        (["munit"], "the system must be one of nec, pix2pix, cyclegan, cut, got 'munit'"),
        (["cut", "preset=volumes"], "the preset volumes is for nec, pix2pix, cyclegan, not cut"),
        (["nec", "lamda_ngf=1"], "there is no option 'lamda_ngf': did you mean lambda_ngf or"),
        (["nec", "qqqqq=1"], "there is no option 'qqqqq': see examples/brats/options.py"),
        (["nec", "batch=0"], "batch must be a whole number of at least 1, got '0'"),
        (["nec", "eps=nan"], "eps must be a positive number, got 'nan'"),
        (["nec", "ramp=2"], "ramp must be a number in [0, 1], got '2'"),
        (["nec", "amp=yes"], "amp must be one of none, bf16, fp16, got 'yes'"),
        (["nec", "--loss-backend", "slow"], "loss_backend must be one of fused, eager, compiled"),
        (["nec", "betas=0.5"], "betas must be 2 values separated by commas, each a number in"),
        (["nec", "unet_channels=8,x"], "unet_channels must be values separated by commas, each a"),
        (["nec", "unet_channels=8"], "unet_channels must name the channels of two levels or more"),
        (["nec", "data.phantom_spacing=x"], "data.phantom_spacing must be a number or none, got"),
        (["nec", "data=/there"], "data has options of its own, data.<name>: got '/th"),
        (["nec", "data.data=/nowhere"], "/nowhere is not a folder"),
        (["nec", "metrics.blur=-1"], "blur must not be negative, got -1.0"),
        (["cut", "nce_layers=8,4"], "nce_layers must ascend to 20 at most, the last residual"),
        (["cut", "data.dimensions=3"], "the ResNet is for slices: generator=resnet needs data.di"),
        (["--resume", "x", "epochs=3"], "a run goes on to a step: give steps in place of epochs"),
        (["cut", "generator=unet"], "CUT compares layers of a ResNet: it needs generator=resnet"),
        (["nec", "--speed", "3"], "unrecognized arguments: --speed"),
        (["nec", "--config", "nowhere.json"], "nowhere.json cannot be read as JSON: "),
        (["--resume", "nowhere"], "nowhere/run.json cannot be read as JSON: "),
        (["--resume", "x", "--preset", "cpu"], "a run goes on with its own options: leave out"),
    ],
    paper.main: [
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
        (["data.size=30"], "the ResNet needs a data.size that is a multiple of 4, got 30"),
        (["nec"], "options are given as key=value, got 'nec'"),
        (["epz=1"], "there is no option 'epz'"),
    ],
    swap.main: [
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["fast"], "options are given as key=value, got 'fast'"),
        (["--backends", "eager,quick"], "loss_backend must be one of "),
        (["generator=resnet"], "the ResNet is for slices: "),
    ],
}


@pytest.mark.parametrize("command", SENTENCES, ids=["train", "paper", "swap"])
def test_what_is_wrong_is_one_sentence(
    command: Callable[[list[str]], int],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, sentence in SENTENCES[command]:
        assert command(words) == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {sentence}"), printed
        assert printed.count("\n") == 1


# --- Fused and eager in a table -------------------------------------------------------------------

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
