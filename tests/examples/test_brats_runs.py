# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: trainings side by side, and which of them are done already."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from brats_runs import SMALL

from examples.brats.data.images import load_data
from examples.brats.options import flat
from examples.brats.train import __main__ as train
from examples.brats.train import runs
from examples.brats.train.loop import Trainer, load_generator
from examples.brats.train.records import read_facts, save_checkpoint
from examples.brats.train.runs import Run, train_all

TINY = {**SMALL, "data.phantom_sizes": "4/4/2/3"}
pytestmark = pytest.mark.usefixtures("own_cache")


def tiny_run(folder: Path, **changes: object) -> Run:
    return runs.make_run("GAN alone", "nec", "cpu", 3, folder, TINY, changes)


def test_trains_once_and_goes_on_with_what_was_interrupted(tmp_path: Path) -> None:
    whole, half = tiny_run(tmp_path / "whole"), tiny_run(tmp_path / "half")
    data = load_data(half.options.data)

    class Stopped(Trainer):
        def _save(self, is_best: bool) -> None:
            super()._save(is_best)
            if self.step == 2:
                raise KeyboardInterrupt

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: sums have an order of their own with more
    with pytest.raises(KeyboardInterrupt):
        Stopped(half.options, data).fit()
    torch.set_num_threads(threads)
    assert not runs.finished(half)
    train_all([whole, half], jobs=2)
    assert runs.finished(whole) and runs.finished(half)
    states = [torch.load(run.options.folder / "last.pt")["system"] for run in (whole, half)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])

    before = whole.log.stat().st_mtime_ns
    train_all([whole, half], jobs=2)
    assert whole.log.stat().st_mtime_ns == before


def save_facts(run: Run, state: str = "finished", **changes: object) -> Path:
    """A run.json with other options; those that are None are left out."""
    saved = flat(asdict(run.options)) | changes
    nested: dict[str, Any] = {"data": {}, "metrics": {}}
    for key, value in saved.items():
        group, _, name = key.rpartition(".")
        if value is not None or key not in changes:
            (nested[group] if group else nested)[name] = value
    path = run.options.folder / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"state": state, "options": nested}))
    return path


LATER = {"workers": None, "accumulate": None, "data.crop": None}  # of a run of before


def test_a_run_of_before_an_option_has_its_default(tmp_path: Path) -> None:
    run = tiny_run(tmp_path)
    save_facts(run, **LATER)
    assert runs.finished(run)
    for name in ("workers", "accumulate", "data.crop"):
        other = tiny_run(tmp_path, **{name: 24})
        with pytest.raises(ValueError, match=rf"gan-alone-3 holds a run with another {name}, \d:"):
            runs.finished(other)
    half = tiny_run(tmp_path / "half")
    save_facts(half, "interrupted", **LATER)
    assert not runs.finished(half)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"amp": True}, "amp must be one of none, bf16, fp16, got 'true'"),
        ({"data.resolution": 64}, "there is no option 'data.resolution':"),
    ],
)
def test_options_of_another_version(
    tmp_path: Path,
    changes: dict[str, object],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tiny_run(tmp_path)
    path = save_facts(run, **changes)
    whole = f"{path} is of another version: {sentence}"
    with pytest.raises(ValueError, match=f"^{re.escape(whole)}"):
        runs.finished(run)
    assert train.main(["--resume", str(run.options.folder)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {whole}")
    save_checkpoint(path.with_name("best.pt"), json.loads(path.read_text()))
    with pytest.raises(ValueError, match=r"best\.pt is of another version: "):
        load_generator(run.options.folder)
    path.write_text('{"state": "finished"}')
    with pytest.raises(ValueError, match=r"run\.json must hold the options of a run$"):
        runs.finished(run)


def test_a_run_that_fails_is_named_when_the_others_are_done(tmp_path: Path) -> None:
    bad = tiny_run(tmp_path / "bad", lr_generator=1e30, log_every=1)
    good = tiny_run(tmp_path / "good")
    with pytest.raises(ValueError, match=r"^GAN alone, seed 3 failed: error: .* became [^;]*$"):
        train_all([bad, good], jobs=2)
    assert runs.finished(good)


def test_sigterm_stops_the_trainings_and_they_can_go_on(tmp_path: Path) -> None:
    run = tiny_run(tmp_path, steps=100_000)

    def stop() -> None:
        while read_facts(run.options.folder).get("step", 0) < 2:
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train_all([run], jobs=1)
    facts = read_facts(run.options.folder)
    assert facts["state"] == "interrupted"
    assert torch.load(run.options.folder / "last.pt")["step"] == facts["step"]
    assert signal.getsignal(signal.SIGTERM) is before
