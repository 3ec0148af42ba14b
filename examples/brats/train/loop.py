# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The training loop of all four systems.

A step depends on the options, on its number and on the state after the step before. Seed, step and
process decide its batches and random numbers. So a resumed run has the weights that it would have
without the interruption, on a CPU bit by bit.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from ..data.images import Data, training_pairs
from ..data.sampling import read_ahead
from ..model.inference import predict
from ..model.networks import check_size, make_generator
from ..model.systems import SYSTEMS
from ..model.systems.base import Losses
from ..options import Options, saved_options
from ..report.metrics import METRICS, score, summary
from .costs import loss_milliseconds, peak_megabytes
from .distributed import Process, any_process, name_of, wait_for_all
from .learner import Learner
from .records import Records, load_checkpoint, save_checkpoint

SHOWN = 4  # validation images in TensorBoard
COSTS = "images_per_second", "step_ms", "loss_ms", "memory_mb"  # since the last line of the file


def load_generator(run: Path) -> tuple[nn.Module, Options]:
    """Load the generator of a run at its best validation, on the CPU, and the run's options.

    With ``ema`` it is the averaged generator. If there is none, a ValueError says so in one
    sentence.
    """
    path = run / "best.pt"
    state = load_checkpoint(path)
    options = saved_options(state, path)
    generator = make_generator(options)
    generator.load_state_dict(state["generator"])
    return generator.eval(), options


class Trainer:
    """A run: all steps of a system's learner, the validations, and the files that it writes.

    Args:
        options: the options of the run.
        data: the images.
        process: this process, which may be one of several.
        resume: whether to continue from the last checkpoint in the run's folder.

    Raises:
        ValueError: with one sentence, if the networks cannot take the images, the folder holds
            another run, or the checkpoint cannot be used.
    """

    def __init__(
        self, options: Options, data: Data, process: Process | None = None, *, resume: bool = False
    ) -> None:
        self.process = process = process or Process()
        check_size(options)
        paired = SYSTEMS[options.system].paired
        batch, patch = options.batch * options.accumulate, options.data.shape[0]
        self.pairs = training_pairs(data, paired, batch, options.seed, patch)
        self.epoch = self.pairs.steps_per_epoch(process.world_size)
        self.options = options = replace(
            options,
            steps=options.steps or options.epochs * self.epoch,
            validate_every=options.validate_every or self.epoch,
        )
        self.validation = data.validation
        self.learner = Learner(options, process)
        self.step = self.best_step = 0
        self.best = -math.inf  # the validation metric of best.pt, which is of best_step
        self.costs: dict[str, float] = {}  # of the last line of metrics.csv
        self.seconds, self.start = 0.0, time.perf_counter()  # earlier seconds, and the start time

        last = options.folder / "last.pt"
        if resume:
            self._load(last)
        elif last.exists():
            raise ValueError(
                f"{options.folder} holds a run: go on with it by --resume {options.folder}, "
                "or choose another folder by out="
            )
        self.records: Records | None = None
        if process.rank == 0:
            losses, rates = self.learner.system.weights(0), self._rates()
            columns = ["step", "epoch", "images", *COSTS, *rates, *losses, *METRICS]
            facts = {
                "options": asdict(options),
                "processes": process.world_size,
                "device": name_of(process.device),
            }
            self.records = Records(options.folder, columns, facts, self.step)
            self._describe("running")

    def fit(self) -> bool:
        """Train to the last step, or until Ctrl-C or SIGTERM; return whether the end was reached.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        outcome = "failed"
        try:
            with _stop_request() as stop_requested:
                self._run(stop_requested)
            wait_for_all()  # until the first process has written the last checkpoint
            outcome = "finished" if self.step == self.options.steps else "interrupted"
        finally:
            self._describe(outcome)
            if self.records:
                self.records.close()
        return outcome == "finished"

    def _run(self, stop_requested: Callable[[], bool]) -> None:
        options, (rank, world_size, device) = self.options, self.process
        images = self.pairs.batch_size * world_size
        steps = range(self.step, options.steps)
        batches = read_ahead(self._batch, steps, options.workers, device.type == "cuda")
        bar = tqdm(
            desc=options.folder.name,
            total=options.steps * images,
            initial=self.step * images,
            unit="image",
            disable=rank > 0,
        )
        with bar:
            if self.step == 0:
                self._record({}, validate=True)
                self._save(is_best=False)
            meter, stop = _Meter(), False
            while self.step < options.steps and not stop:
                source, target = (half.to(device, non_blocking=True) for half in next(batches))
                losses = self.learner.learn(self.step, source, target)
                self.step += 1
                meter.add(losses, images)
                bar.update(images)
                stop = any_process(stop_requested())
                validate = self.step % options.validate_every == 0 or self.step == options.steps
                is_best = False
                if validate or self.step % options.log_every == 0:
                    means = meter.read() | self._loss_and_memory(source)
                    self.costs = {name: round(means[name], 3) for name in COSTS if name in means}
                    bar.set_postfix({name: f"{means[name]:.3g}" for name in losses})
                    is_best = self._record(means, validate)
                    meter = _Meter()
                if validate or stop:
                    self._save(is_best)

    def _batch(self, step: int) -> tuple[Tensor, Tensor]:
        options, process = self.options, self.process
        over = options.augment == "jitter" and step >= options.jitter * options.steps
        augment = "flip" if over else options.augment
        return self.pairs.batch(step, augment, process.rank, process.world_size)

    def _loss_and_memory(self, source: Tensor) -> dict[str, float]:
        """Measure the NGF loss for a step's images, outside of the step, and the peak of memory."""
        costs = {"memory_mb": peak_megabytes(self.process.device)}
        loss, count = self.learner.system.ngf_loss, self.options.accumulate
        if self.records and loss:
            batch = source.chunk(count)[0]
            costs["loss_ms"] = count * loss_milliseconds(loss, batch, self.learner.precision)
        return costs

    def _record(self, means: Mapping[str, float], validate: bool) -> bool:
        """Write a line of metrics.csv; return whether its validation is the best one so far."""
        if self.records is None:  # only the first process writes
            return False
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise FloatingPointError(
                    f"{name} became {mean} before step {self.step}: lower learning rates may help"
                )
        seen = self.step * self.pairs.batch_size * self.process.world_size
        row = {"step": self.step, "epoch": self.step / self.epoch, "images": seen}
        row |= {**self._rates(), **means}
        is_best = False
        if validate:
            fake = predict(
                self.learner.generator,
                self.validation.t1,
                device=self.process.device,
                patch=self.options.data.shape[0],
            )
            metrics = summary(score(fake, self.validation, self.options.metrics))
            row |= {name: statistic.mean for name, statistic in metrics.items()}
            # The untrained network is never the best: with matched histograms it may look good.
            is_best = self.step > 0 and row[self.options.selection] > self.best
            if is_best:
                self.best, self.best_step = row[self.options.selection], self.step
            images = self.validation.t1, fake, self.validation.t2
            self.records.show(self.step, [image[:SHOWN] for image in images])
        self.records.add(row)
        return is_best

    def _rates(self) -> dict[str, float]:
        learner, step = self.learner, max(self.step - 1, 0)  # the last step that was taken
        rates = {f"lr_{name}": learner.rate(name, step) for name in learner.optimizers}
        if learner.system.ngf_loss:
            rates["ngf_weight"] = learner.system.weights(step)["ngf"]
        return rates

    def _save(self, is_best: bool) -> None:
        """Write last.pt, and best.pt too if no state before was better."""
        state = self.learner.state()
        if self.records:
            state |= {"options": asdict(self.options), **self._progress()}
            if is_best:  # before last.pt: a run that is killed here resumes from the old last.pt
                kept = {key: state[key] for key in ("options", "step", "generator")}
                save_checkpoint(self.options.folder / "best.pt", kept)
            save_checkpoint(self.options.folder / "last.pt", state)
            self._describe("running")

    def _describe(self, outcome: str) -> None:
        if self.records:
            progress = self._progress()
            best = self.best if math.isfinite(self.best) else None
            self.records.describe({"state": outcome, **progress, "best": best, **self.costs})

    def _progress(self) -> dict[str, float]:
        seconds = self.seconds + time.perf_counter() - self.start
        return {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "seconds": round(seconds, 1),
        }

    def _load(self, path: Path) -> None:
        state = load_checkpoint(path)
        try:
            self.learner.load(state)
        except ValueError as error:
            raise ValueError(f"{path} cannot be used: {error}") from error
        self.step, self.best, self.best_step, self.seconds = (
            state[name] for name in ("step", "best", "best_step", "seconds")
        )
        if self.step > self.options.steps:
            raise ValueError(f"{path} is of step {self.step}, beyond steps={self.options.steps}")


class _Meter:
    """The means of losses, and of the costs of a step, since the meter was made."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = self.images = 0
        self.start = time.perf_counter()

    def add(self, losses: Losses, images: int) -> None:
        """Add a step, without waiting for a GPU to finish it."""
        self.sums = {name: self.sums.get(name, 0) + loss for name, loss in losses.items()}
        self.steps += 1
        self.images += images

    def read(self) -> dict[str, float]:
        means = {name: total.item() / self.steps for name, total in self.sums.items()}
        seconds = time.perf_counter() - self.start
        costs = {"images_per_second": self.images / seconds, "step_ms": 1e3 * seconds / self.steps}
        return costs | means


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl-C or SIGTERM came, so that a step can be finished."""
    received: list[int] = []
    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(one, lambda number, _: received.append(number)) for one in signals]
    try:
        yield lambda: bool(received)
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
