# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Options: presets, layers, the command line, and a sentence for everything that is wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from brats_runs import SYSTEMS

from examples.brats.options import Options, change, make_options, parse
from examples.brats.presets import PRESETS
from examples.brats.train.__main__ import main


@pytest.mark.parametrize(
    ("system", "preset"),
    [(system, name) for name, preset in PRESETS.items() for system in preset or SYSTEMS],
)
def test_presets_survive_json(system: str, preset: str) -> None:
    options = make_options(system, preset)
    assert (options.system, options.preset) == (system, preset)
    assert change(Options(), json.loads(json.dumps(asdict(options)))) == options


def test_defaults_are_the_papers() -> None:
    options, resume = parse(["nec"])
    assert options == Options()
    assert not resume
    assert options.folder == Path("out/brats/nec")
    assert (options.lambda_ngf, options.eps, options.eps_mode, options.operator) == (
        1.0,
        0.15,
        "quadrature",
        "sobel",
    )


def test_later_layers_win(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"eps": 0.3, "batch": 4, "data": {"size": 32}, "unet_channels": [8, 16]}')
    options, _ = parse(
        ["nec", "--config", str(config), "eps=0.2", "--preset", "cpu", "data.upper=99.9"]
    )
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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
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
)
def test_sentences(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {sentence}")
    assert printed.count("\n") == 1
