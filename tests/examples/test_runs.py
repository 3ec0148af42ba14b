# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: trainings side by side, and two processes or more that train together."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from brats_runs import TINY, assert_equal, make_trainer
from helpers import ROOT, run_python, threads

from examples.brats.data.images import load_data
from examples.brats.train import __main__ as train
from examples.brats.train import runs
from examples.brats.train.loop import Trainer
from examples.brats.train.runs import Run, train_all

pytestmark = pytest.mark.usefixtures("own_cache")


def tiny_run(folder: Path, **changes: object) -> Run:
    return runs.make_run("GAN alone", "nec", "cpu", 3, folder, TINY, changes)


@pytest.mark.slow
def test_trains_once_goes_on_and_names_what_fails(tmp_path: Path) -> None:
    whole, half = tiny_run(tmp_path / "whole"), tiny_run(tmp_path / "half")
    bad = tiny_run(tmp_path / "bad", lr_generator=1e30, log_every=1)

    class Stopped(Trainer):
        def _save(self, is_best: bool) -> None:
            super()._save(is_best)
            if self.step == 2:
                raise KeyboardInterrupt

    # One thread, as in the processes: sums have an order of their own with more.
    with threads(1), pytest.raises(KeyboardInterrupt):
        Stopped(half.options, load_data(half.options.data)).fit()
    assert not runs.finished(half)
    with pytest.raises(ValueError, match=r"^GAN alone, seed 3 failed: error: .* became [^;]*$"):
        train_all([bad, whole, half], jobs=2)
    assert runs.finished(whole) and runs.finished(half)
    states = [torch.load(run.options.folder / "last.pt")["system"] for run in (whole, half)]
    assert_equal(*states)
    before = whole.log.stat().st_mtime_ns
    train_all([whole, half], jobs=2)
    assert whole.log.stat().st_mtime_ns == before


def test_a_run_of_before_an_option_has_its_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(tmp_path)
    path = run.options.folder / "run.json"
    path.parent.mkdir(parents=True)
    saved = asdict(run.options)
    del saved["accumulate"], saved["data"]["crop"]
    path.write_text(json.dumps({"state": "finished", "options": saved}))
    assert runs.finished(run)
    other = tiny_run(tmp_path, accumulate=24)
    with pytest.raises(ValueError, match=r"gan-alone-3 holds a run with another accumulate, 1:"):
        runs.finished(other)
    path.write_text(json.dumps({"state": "finished", "options": {**saved, "later": 1}}))
    assert train.main(["--resume", str(run.options.folder)]) == 1
    error = f"error: {path} is of another version: there is no option 'later':"
    assert capsys.readouterr().err.startswith(error)


TWO_PROCESSES = """
import sys
import torch
from brats_runs import random_data, small_options
from examples.brats.train.distributed import any_process, joined
from examples.brats.train.loop import Trainer

with joined("cpu") as process:
    assert any_process(process.rank == 1) and not any_process(False)
    for system in ("nec", "cyclegan"):
        out = f"{sys.argv[1]}/{system}"
        options = small_options(system, out=out, batch=1, steps=2, pool=2, augment="none")
        trainer = Trainer(options, random_data(), process)
        trainer.fit()
        torch.save(trainer.learner.system.state_dict(), f"{out}/rank{process.rank}.pt")
        trainer = Trainer(options, random_data(), process, resume=True)
        assert trainer.step == 2
        torch.save(trainer.learner.system.pool_state(), f"{out}/pools{process.rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests/examples")))
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    done = run_python(*launcher, str(script), str(tmp_path), PYTHONPATH=path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    for system in ("nec", "cyclegan"):
        run, alone = tmp_path / system, tmp_path / f"{system}-alone"
        first, second = (torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
        assert_equal(first, second)
        trainer = make_trainer(alone, system, batch=2, steps=2, pool=4, augment="none")
        trainer.fit()
        for name, weight in trainer.learner.system.state_dict().items():
            if weight.dim() > 1:  # most biases have no gradient but rounding errors
                torch.testing.assert_close(first[name], weight, rtol=1e-3, atol=1e-5)

    pools = [torch.load(run / f"pools{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [len(pool["target"]) for pool in pools] == [2, 2]
    assert not torch.equal(pools[0]["target"][0], pools[1]["target"][0])
