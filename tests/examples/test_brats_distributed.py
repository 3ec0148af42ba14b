# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Two processes that train together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from brats_runs import assert_equal, lines, make_trainer, run_file

from examples.brats.train.distributed import first_before_others

ROOT = Path(__file__).parents[2]


def test_one_process_calls_once() -> None:
    calls: list[int] = []
    first_before_others(lambda: calls.append(1) or "made")
    assert calls == [1]


TWO_PROCESSES = """
import sys
import time
import torch
from brats_runs import random_data, small_options
from examples.brats.train.distributed import (
    any_process,
    average_gradients,
    first_before_others,
    joined,
)
from examples.brats.train.loop import Trainer

with joined("cpu") as process:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.0, 1.0]) + process.rank
    average_gradients([weight, torch.nn.Parameter(torch.zeros(2))])
    assert weight.grad.tolist() == [0.5, 1.5]
    assert any_process(process.rank == 1) and not any_process(False)

    def call():
        with open(f"{sys.argv[1]}/calls", "a") as file:
            file.write(str(process.rank))
        time.sleep(0.3)
        return process.rank

    assert first_before_others(call) == process.rank
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


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests/examples'}"
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == "01"
    for system in ("nec", "cyclegan"):
        run = tmp_path / system
        first, second = (torch.load(run / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
        assert_equal(first, second)
        assert run_file(run)["processes"] == 2
        assert [row["step"] for row in lines(run)] == ["0", "1", "2"]

        alone = make_trainer(
            tmp_path / f"{system}-alone", system, batch=2, steps=2, pool=4, augment="none"
        )
        alone.fit()
        for name, weight in alone.learner.system.state_dict().items():
            if weight.dim() > 1:  # most biases have no gradient but rounding errors
                torch.testing.assert_close(first[name], weight, rtol=1e-3, atol=1e-5)

    pools = [torch.load(run / f"pools{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert [len(pool["target"]) for pool in pools] == [2, 2]
    assert not torch.equal(pools[0]["target"][0], pools[1]["target"][0])
