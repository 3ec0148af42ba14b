# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/train: a run, by hand too; what it writes, how it stops and how it goes on."""

import copy
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from brats_runs import (
    SYSTEMS,
    TINY,
    VOLUMES,
    as_words,
    assert_equal,
    lines,
    make_trainer,
    random_data,
    run_file,
    small_options,
)
from helpers import ROOT, run_python, threads
from torch import Tensor, nn

import nec_ext
from examples.brats.data.images import Data, load_data
from examples.brats.model.inference import predict
from examples.brats.report.metrics import score, summary
from examples.brats.train import loop as training
from examples.brats.train import runs
from examples.brats.train.__main__ import main
from examples.brats.train.loop import Trainer, load_generator
from examples.brats.train.records import load_checkpoint, save_checkpoint
from examples.brats.train.runs import Run, train_all

RUN = {"steps": 6, "validate_every": 4, "lr_generator": 0.02, "ema": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finish a run."""
    folder = tmp_path_factory.mktemp("run")
    assert make_trainer(folder, **RUN).fit()
    return folder


def after_step(trainer: Trainer, step: int, action: Callable[[], object]) -> None:
    """Have the trainer do something in the middle of a step, its networks halfway."""
    learn = trainer.learner.learn

    def learn_and_act(number: int, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        losses = learn(number, source, target)
        if number + 1 == step:
            action()
        return losses

    trainer.learner.learn = learn_and_act


def test_a_run_writes_its_records(run: Path) -> None:
    rows = lines(run)
    assert [row["step"] for row in rows] == [str(step) for step in range(7)]
    validated = [row["step"] for row in rows if row["ssim"]]
    assert validated == ["0", "4", "6"]  # before the first and after the last one in any case
    rates = [float(row["lr_generator"]) for row in rows]
    assert rates == pytest.approx([0.02] * 5 + [0.04 / 3, 0.02 / 3])
    assert (run_file(run)["state"], run_file(run)["step"]) == ("finished", 6)


def test_best_checkpoint_is_the_best_validation(run: Path) -> None:
    ssim = [float(row["ssim"]) for row in lines(run)[1:] if row["ssim"]]
    generator, options = load_generator(run)
    group = random_data().validation
    found = summary(score(predict(generator, group.t1), group, options.metrics))["ssim"].mean
    assert found == pytest.approx(max(ssim), rel=1e-6) != pytest.approx(min(ssim), rel=1e-6)
    assert not generator.training


def test_only_the_paired_system_sees_pairs(tmp_path: Path) -> None:
    data = random_data()

    def number(image: Tensor, known: Tensor) -> int:
        """Find an image or its mirror, left and right exchanged."""
        return next(k for k, one in enumerate(known) if any(map(image.equal, (one, one.flip(1)))))

    for system in SYSTEMS:
        trainer = make_trainer(tmp_path / system, system, augment="flip")
        paired = system == "pix2pix"
        known = (data.source if paired else data.target).t2
        numbers = {
            (number(source, data.source.t1), number(target, known))
            for step in range(6)
            for source, target in zip(*trainer._batch(step), strict=True)
        }
        assert {source for source, _ in numbers} == set(range(6))
        assert paired == all(source == target for source, target in numbers)
        assert paired == (len(numbers) == 6)


@pytest.mark.parametrize("warmup_target", ["source", "negative"])
def test_a_run_by_hand(warmup_target: str, tmp_path: Path) -> None:
    """Train NEC by nothing of the trainer but the first weights and the batches.

    In float64, for Adam takes whole steps where a gradient is nothing but rounding errors.
    """
    options = small_options(
        **{"out": str(tmp_path), "batch": 1, "accumulate": 2, "ema": 0.5, "augment": "flip"},
        **{"warmup": 0.25, "delay": 0.25, "ramp": 0.5, "decay": 0.5, "validate_every": 4},
        warmup_target=warmup_target,
        **{"lambda_gan": 0.7, "lambda_ngf": 3, "lambda_l1": 20, "lr_discriminator": 5e-3},
    )
    groups = [
        replace(one, t1=one.t1.double(), t2=one.t2.double()) for one in vars(random_data()).values()
    ]
    trainer = Trainer(options, Data(*groups))
    trainer.learner.system.double()
    trainer.learner.average.double()
    system = copy.deepcopy(trainer.learner.system)
    generator, discriminator = system.generator, system.discriminators["target"]
    adam = {
        one: torch.optim.Adam(one.parameters(), betas=(0.5, 0.999))
        for one in (generator, discriminator)
    }

    def judged(images: Tensor, real: bool) -> Tensor:
        logits = discriminator(images)
        return sum(F.softplus(-one if real else one).mean() for one in logits) / len(logits)

    def negative(image: Tensor) -> Tensor:
        return torch.where(image > -1, -image, -1)

    def descend(network: nn.Module, loss: Tensor, rate: float) -> None:
        parameters = list(network.parameters())
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        adam[network].param_groups[0]["lr"] = rate
        adam[network].step()

    average: list[Tensor] = []
    for step, (falling, growing) in enumerate([(1, 0), (1, 0), (1, 0.5), (0.5, 1)]):
        source, target = trainer.pairs.batch(step, "flip")
        fake = generator(source)
        copies = step == 0 and warmup_target == "source"
        real = judged(source if copies else target, True)
        descend(discriminator, 0.5 * (real + judged(fake.detach(), False)), 5e-3 * falling)
        ngf = nec_ext.reference.ngf_loss(
            fake, source, eps=0.15, eps_mode="quadrature", operator="sobel"
        )
        l1 = F.l1_loss(fake, source if warmup_target == "source" else negative(source))
        loss = 0.7 * judged(fake, True) + 3 * growing * ngf + 20 * (1 - growing) * l1
        descend(generator, loss, 1e-3 * falling)
        now = [weight.detach().clone() for weight in generator.parameters()]
        average = [(a + b) / 2 for a, b in zip(average, now, strict=True)] if average else now

    assert trainer.fit()
    found = list(trainer.learner.generator.parameters())
    torch.testing.assert_close(found, average, rtol=1e-6, atol=1e-9)
    found, expected = (list(one.parameters()) for one in (trainer.learner.system, system))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("system", ["cyclegan", "cut", "nec"])
def test_resumed_is_uninterrupted(system: str, tmp_path: Path) -> None:
    changes = {"steps": 6, "validate_every": 4, "ema": 0.9, "pool": 3, "augment": "jitter"}
    if system == "nec":
        changes |= {**VOLUMES, "accumulate": 2, "batch": 1, "workers": 2, "amp": "fp16"}
        changes |= {"delay": "auto", "delay_steps": (0, 3), "discriminator_norm": "spectral"}
        changes |= {"discriminator_augment": "translation"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    make_trainer(whole, system, **changes).fit()
    # The resumed run drops the lines after the last checkpoint of the one that failed.
    for number, step in ((signal.SIGINT, 2), (None, 4), (signal.SIGTERM, 5)):
        trainer = make_trainer(parts, system, resume=parts.exists(), **changes)
        if number:
            after_step(trainer, step, lambda n=number: signal.raise_signal(n))
            assert not trainer.fit()
        else:
            assert trainer.step == 2
            after_step(trainer, step, mock.Mock(side_effect=MemoryError))
            with pytest.raises(MemoryError):
                trainer.fit()
            assert lines(parts)[-1]["step"] == "3"
        assert run_file(parts)["state"] == ("interrupted" if number else "failed")
        torch.rand(3)  # what else draws random numbers does not matter
    assert make_trainer(parts, system, resume=True, **changes).fit()

    for name in ("last.pt", "best.pt"):
        states = [load_checkpoint(folder / name) for folder in (whole, parts)]
        for state in states:
            state["options"]["out"] = ""
            state.pop("seconds", None)
        assert_equal(*states)
    unknown = dict.fromkeys(training.COSTS, "")  # differs from run to run
    assert [row | unknown for row in lines(whole)] == [row | unknown for row in lines(parts)]


def test_checkpoints_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / "last.pt"
    state = load_checkpoint(path)
    two = {**state, "pools": state["pools"] * 2}
    for changes, damage, sentence in (
        ({"unet_units": 2}, None, r"last\.pt cannot be used: its networks or optimizers"),
        ({"ema": 0}, None, "one of it and the options has an ema"),
        ({"steps": 5}, None, r"last\.pt is of step 6, beyond steps=5"),
        ({}, lambda: save_checkpoint(path, two), "it was written by 2 processes, not 1"),
        ({}, lambda: os.truncate(path, 5000), r"last\.pt is not a checkpoint, or a damaged one$"),
        ({}, path.unlink, r"there is no checkpoint .*last\.pt$"),
    ):
        if damage:
            damage()
        with pytest.raises(ValueError, match=sentence):
            make_trainer(folder, resume=True, **{**RUN, **changes})


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        next(trainer.learner.system.generator.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="became nan before step 1: lower learning rates"):
        trainer.fit()
    assert run_file(tmp_path)["state"] == "failed"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, small = tmp_path / "run", {**TINY, "validate_every": 1}
    own = {"out": run, "data.cache": tmp_path / "cache", "device": "cpu", "steps": 1}
    words = ["nec", "--preset", "cpu", *as_words({**small, **own})]
    assert main(words) == 0
    capsys.readouterr()
    assert main(words) == 1
    assert capsys.readouterr().err.startswith(f"error: {run} holds a run")
    assert main(["--resume", str(run), "steps=2"]) == 0
    assert run_file(run)["step"] == 2


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
    assert main(["--resume", str(run.options.folder)]) == 1
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
        changes = dict(batch=1, steps=2, pool=2, augment="none", delay="auto")
        options = small_options(system, out=f"{sys.argv[1]}/{system}", **changes)
        trainer = Trainer(options, random_data(), process)
        trainer.fit()
        again = Trainer(options, random_data(), process, resume=True)
        assert again.step == 2
        states = trainer.learner.system.state_dict(), again.learner.system.pool_state()
        torch.save(states, f"{options.out}/rank{process.rank}.pt")
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
        (first, pool), (second, other) = (torch.load(run / f"rank{rank}.pt") for rank in (0, 1))
        assert_equal(first, second)
        assert [len(images["target"]) for images in (pool, other)] == [2, 2]
        assert not torch.equal(pool["target"][0], other["target"][0])
        changes = {"batch": 2, "steps": 2, "pool": 4, "augment": "none", "delay": "auto"}
        trainer = make_trainer(alone, system, **changes)
        trainer.fit()
        if system == "nec":
            together = trainer.learner.system.onset.correlation
            torch.testing.assert_close(first["onset.correlation"], together)
        for name, weight in trainer.learner.system.state_dict().items():
            if weight.dim() > 1:  # most biases have no gradient but rounding errors
                torch.testing.assert_close(first[name], weight, rtol=1e-3, atol=1e-5)
