# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Runs: what they write, how they stop and go on, alone and in two processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from brats_runs import (
    VOLUMES,
    assert_equal,
    lines,
    make_trainer,
    run_file,
)
from torch import Tensor

from examples.brats.report.metrics import METRICS
from examples.brats.train import loop as training
from examples.brats.train.__main__ import main
from examples.brats.train.learner import Learner
from examples.brats.train.loop import Trainer, load_generator
from examples.brats.train.records import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[2]
UNKNOWN = dict.fromkeys(training.COSTS, "")  # what differs from run to run


def after_step(trainer: Trainer, step: int, action: Callable[[], object]) -> None:
    """Has the trainer do something in the middle of a step, its networks halfway."""
    learn = trainer.learner.learn

    def learn_and_act(number: int, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        losses = learn(number, source, target)
        if number + 1 == step:
            action()
        return losses

    trainer.learner.learn = learn_and_act


def test_a_run_writes_its_records(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", steps=3, log_every=1, validate_every=2)
    assert trainer.fit()
    rows = lines(tmp_path / "run")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[1]["epoch"]) == pytest.approx(1 / 3)  # 6 images in batches of 2
    validated = [row["step"] for row in rows if row["ssim"]]
    assert validated == ["0", "2", "3"]  # before the first and after the last one in any case
    for row in rows[1:]:
        assert all(float(row[name]) > 0 for name in ("gan", "ngf", "d_real", "d_fake"))
        assert all(float(row[name]) > 0 for name in training.COSTS)
    assert [float(row["lr_generator"]) for row in rows] == pytest.approx([1e-3] * 3 + [2e-3 / 3])
    assert list(rows[0])[-len(METRICS) :] == list(METRICS)

    facts = run_file(tmp_path / "run")
    assert (facts["state"], facts["step"], facts["processes"]) == ("finished", 3, 1)
    assert facts["best"] == max(float(row["ssim"]) for row in rows[1:] if row["ssim"])
    assert float(rows[facts["best_step"]]["ssim"]) == facts["best"]
    assert facts["seconds"] > 0
    assert {name: facts[name] for name in training.COSTS} == pytest.approx(
        {name: float(rows[-1][name]) for name in training.COSTS}, abs=1e-3
    )
    assert facts["device"] == "cpu"
    assert facts["options"]["data"]["size"] == 32
    assert facts["torch"] == torch.__version__
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode == 0:
        assert facts["commit"].startswith(commit.stdout.strip())


def test_best_checkpoint_is_the_best_validation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=6, validate_every=1, lr_generator=0.02, ema=0.5)
    generators = {}
    learn = trainer.learner.learn
    generators[0] = {k: v.clone() for k, v in trainer.learner.generator.state_dict().items()}

    def remember(step: int, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        losses = learn(step, source, target)
        averaged = trainer.learner.generator.state_dict()
        generators[step + 1] = {k: v.clone() for k, v in averaged.items()}
        return losses

    trainer.learner.learn = remember
    trainer.fit()
    ssim = [float(row["ssim"]) for row in lines(tmp_path)]
    best = max(range(1, len(ssim)), key=ssim.__getitem__)
    generator, options = load_generator(tmp_path)
    assert_equal(dict(generator.state_dict()), generators[best])
    assert load_checkpoint(tmp_path / "best.pt")["step"] == best
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 6
    assert options == trainer.options
    assert not generator.training


def test_tensorboard_events(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_trainer(tmp_path, steps=2).fit()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("ngf")] == [1, 2]
    assert [event.step for event in events.Scalars("ssim")] == [0, 2]
    image = events.Images("validation")[0]
    assert (image.width, image.height) == (3 * 32, 2 * 32)


IN_3D = {**VOLUMES, "accumulate": 2, "batch": 1, "workers": 2, "amp": "fp16"}


@pytest.mark.parametrize(
    ("system", "own"),
    [("cyclegan", {}), ("cut", {}), ("nec", IN_3D)],
    ids=["cyclegan", "cut", "volumes"],
)
def test_resumed_is_uninterrupted(system: str, own: dict[str, object], tmp_path: Path) -> None:
    changes = {"steps": 6, "validate_every": 4, "ema": 0.9, "pool": 3, "augment": "jitter", **own}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make_trainer(whole, system, **changes).fit()
    seconds = 0.0
    for number in (signal.SIGINT, signal.SIGTERM):
        trainer = make_trainer(parts, system, resume=parts.exists(), **changes)
        after_step(
            trainer,
            {signal.SIGINT: 2, signal.SIGTERM: 5}[number],
            lambda n=number: signal.raise_signal(n),
        )
        assert not trainer.fit()
        assert run_file(parts)["state"] == "interrupted"
        assert run_file(parts)["seconds"] >= seconds  # those of all parts
        seconds = run_file(parts)["seconds"]
        torch.rand(3)  # what else draws random numbers does not matter
    assert make_trainer(parts, system, resume=True, **changes).fit()

    for name in ("last.pt", "best.pt"):
        states = [load_checkpoint(folder / name) for folder in (whole, parts)]
        for state in states:
            state["options"]["out"] = ""
            state.pop("seconds", None)
        assert_equal(*states)
    assert [row | UNKNOWN for row in lines(whole)] == [row | UNKNOWN for row in lines(parts)]


def test_what_was_written_after_the_checkpoint_is_dropped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=6, validate_every=2)

    def crash() -> None:
        raise MemoryError

    after_step(trainer, 6, crash)
    with pytest.raises(MemoryError):
        trainer.fit()
    assert [row["step"] for row in lines(tmp_path)] == ["0", "1", "2", "3", "4", "5"]
    assert run_file(tmp_path)["state"] == "failed"
    trainer = make_trainer(tmp_path, steps=6, validate_every=2, resume=True)
    assert trainer.step == 4
    trainer.fit()
    assert [row["step"] for row in lines(tmp_path)] == ["0", "1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize("error", [RuntimeError("no space"), MemoryError()])
def test_failing_write_leaves_the_old_checkpoint(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    original = torch.save

    def fail(state: object, file: Any) -> None:
        original(state, file)
        raise error

    monkeypatch.setattr(torch, "save", fail)
    expected = MemoryError if isinstance(error, MemoryError) else OSError
    with pytest.raises(expected):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert os.listdir(tmp_path) == ["last.pt"]


def test_checkpoints_that_cannot_be_used(tmp_path: Path) -> None:
    make_trainer(tmp_path, steps=2, ema=0.9).fit()
    path = tmp_path / "last.pt"
    intact = path.read_bytes()

    with pytest.raises(ValueError, match=r"last\.pt cannot be used: its networks or optimizers"):
        make_trainer(tmp_path, steps=2, ema=0.9, unet_units=2, resume=True)
    with pytest.raises(ValueError, match=r"last\.pt cannot be used: its networks or optimizers"):
        make_trainer(tmp_path, steps=2, ema=0.9, coupled_adam=True, resume=True)
    with pytest.raises(ValueError, match="one of it and the options has an ema"):
        make_trainer(tmp_path, steps=2, resume=True)
    state = load_checkpoint(path)
    save_checkpoint(path, {**state, "pools": state["pools"] * 2})
    with pytest.raises(ValueError, match="it was written by 2 processes, not 1"):
        make_trainer(tmp_path, steps=2, resume=True)
    for damaged in (intact[:-1000], intact[: len(intact) // 2], b"", b"text", os.urandom(1000)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.pt is not a checkpoint, or a damaged one$"):
            make_trainer(tmp_path, steps=2, resume=True)
    path.unlink()
    with pytest.raises(ValueError, match=r"there is no checkpoint .*last\.pt$"):
        make_trainer(tmp_path, steps=2, resume=True)
    with pytest.raises(ValueError, match=r"there is no checkpoint .*best\.pt$"):
        load_generator(tmp_path / "nowhere")


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=4, log_every=1)
    with torch.no_grad():
        next(trainer.learner.system.generator.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="became nan before step 1: lower learning rates"):
        trainer.fit()
    assert run_file(tmp_path)["state"] == "failed"


TINY = (
    *("--preset", "cpu", "data.size=32", "data.phantom_sizes=4/4/2/2", "unet_channels=4,8"),
    *("unet_units=1", "discriminator_channels=4", "discriminator_scales=2", "device=cpu"),
    *("validate_every=1", "log_every=1"),
)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nec", *TINY, f"out={tmp_path / 'run'}", f"data.cache={tmp_path / 'cache'}"]
    assert main([*words, "steps=1"]) == 0
    out, bar = capsys.readouterr()
    assert re.fullmatch(r"\S+ ms per step, of them \S+ ms the fused loss; at most \d+ MB\n", out)
    assert all(part in bar for part in ("2/2", "image/s", "ngf=", "gan=", "d_real="))
    assert main([*words, "steps=1"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'run'} holds a run")
    assert main(["--resume", str(tmp_path / "run"), "steps=2"]) == 0
    assert run_file(tmp_path / "run")["step"] == 2
    assert main(["nec", f"data.data={tmp_path / 'nowhere'}"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_command_line_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Learner.learn

    def interrupted(*arguments: Any) -> dict[str, Tensor]:
        signal.raise_signal(signal.SIGINT)
        return learn(*arguments)

    monkeypatch.setattr(Learner, "learn", interrupted)
    run = tmp_path / "run"
    assert main(["nec", *TINY, f"out={run}", f"data.cache={tmp_path / 'cache'}", "steps=3"]) == 130
    assert capsys.readouterr().out.endswith(f"stopped after step 1: --resume {run} goes on\n")


def test_jitter_ends_where_the_options_say(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, steps=4, augment="jitter", jitter=0.5)
    asked: list[str] = []
    batch = trainer.pairs.batch

    def remember(step: int, augment: str, *ranks: int) -> tuple[Tensor, Tensor]:
        asked.append(augment)
        return batch(step, augment, *ranks)

    trainer.pairs.batch = remember
    trainer.fit()
    assert asked == ["jitter", "jitter", "flip", "flip"]


def test_killed_between_its_two_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    changes = {"steps": 4, "validate_every": 1}
    make_trainer(whole, **changes).fit()
    written: list[str] = []

    def save(path: Path, state: dict[str, object]) -> None:
        save_checkpoint(path, state)
        written.append(path.name)
        if path.name == "best.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(killed, **changes).fit()
    assert written == ["last.pt", "best.pt"]
    monkeypatch.undo()
    make_trainer(killed, resume=True, **changes).fit()
    states = [load_checkpoint(folder / "best.pt") for folder in (whole, killed)]
    assert states[0]["step"] == states[1]["step"]
    assert_equal(states[0]["generator"], states[1]["generator"])
