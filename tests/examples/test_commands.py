# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: options and their layers, a sentence for all that is wrong, and swap.py."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from brats_runs import SYSTEMS, read_csv
from helpers import ROOT

from examples.brats import paper, search, swap
from examples.brats.options import Options, change, make_options, parse
from examples.brats.presets import PRESETS
from examples.brats.train.__main__ import main

pytestmark = pytest.mark.usefixtures("own_cache")


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
    (main, ["nec", "lamda_ngf=1"], "there is no option 'lamda_ngf': did you mean lambda_ngf or"),
    (main, ["nec", "eps=nan"], "eps must be a positive number, got 'nan'"),
    (main, ["nec", "--loss-backend", "slow"], "loss_backend must be one of fused, eager, compiled"),
    (main, ["nec", "delay=soon"], "delay must be a number in [0, 1] or auto, got 'soon'"),
    (main, ["nec", "delay_steps=9,3"], "delay_steps must ascend, got 9,3"),
    (main, ["nec", "form=cross", "eps_mode=augmented"], "form=cross needs eps_mode=additive or"),
    (search.main, ["--only", "luck"], "there is no setting 'luck': --list names them all"),
    (main, ["nec", "unet_channels=8"], "unet_channels must name the channels of two levels"),
    (main, ["--resume", "x", "epochs=3"], "a run goes on to a step: give steps in place of epochs"),
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
