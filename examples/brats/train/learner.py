# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A training step of a system: which losses reach which weights, in which order and precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..model.systems import make_system
from ..model.systems.base import Images, Losses, System
from ..options import Options
from .distributed import Process, average, average_gradients, collected

PRECISIONS = {"none": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Learner:
    """A system, its optimizers and, with ``ema``, the average of its generator.

    Args:
        options: the options of the run; ``steps`` is not 0.
        process: this process, which may be one of several.
    """

    def __init__(self, options: Options, process: Process) -> None:
        self.options, self.process = options, process
        torch.manual_seed(options.seed)  # every process draws the same weights
        self.system = make_system(options).to(process.device)
        self.optimizers = make_optimizers(self.system, options)
        self.precision = PRECISIONS[options.amp]  # of the networks' activations
        self.scaler = torch.amp.GradScaler(process.device.type, enabled=options.amp == "fp16")
        self.average: AveragedModel | None = None
        if options.ema:
            averaging = get_ema_multi_avg_fn(options.ema)
            self.average = AveragedModel(self.system.generator, multi_avg_fn=averaging)

    @property
    def generator(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.average.module if self.average else self.system.generator

    def learn(self, step: int, source: Tensor, target: Tensor) -> Losses:
        """Take a step of all optimizers; return its losses, detached and without their weights.

        Args:
            step: its number, from 0. Weights, rates and random numbers depend on it.
            source, target: ``(B, 1, ...)`` in [-1, 1], all of the step's ``accumulate`` batches.
        """
        options, system = self.options, self.system
        torch.manual_seed(_seed(options.seed, step, self.process.rank))
        # As in the authors' code, which warms up to a copy, the discriminator has one target with
        # the generator. A negative has the contrast of a T2, of which it can learn from the start.
        if options.warmup_target == "source" and step < options.warmup * options.steps:
            target = source
        parts = source.chunk(options.accumulate), target.chunk(options.accumulate)
        batches = list(zip(*parts, strict=True))
        single = len(batches) == 1
        with torch.set_grad_enabled(single):
            fakes = [self._generate(*batch) for batch in batches]

        def with_graphs() -> Iterator[tuple[Tensor, Tensor, Images]]:
            """Yield batches and fakes; only one of several batches has its graph in memory."""
            for batch, images in zip(batches, fakes, strict=True):
                yield *batch, images if single else self._generate(*batch)

        def generator_losses() -> Iterator[Losses]:
            for batch in with_graphs():
                with _frozen(system.discriminators), self._autocast():
                    losses = system.generator_losses(*batch)
                yield losses

        def discriminator_losses() -> Iterator[Losses]:
            for batch, images in zip(batches, fakes, strict=True):
                with self._autocast():
                    losses = system.discriminator_losses(*batch, images)
                yield losses

        def coupled_losses() -> Iterator[Losses]:
            for batch in with_graphs():
                with self._autocast():
                    losses = system.generator_losses(*batch)
                    losses |= system.discriminator_losses(*batch)
                yield losses

        if options.coupled_adam:
            losses = self._descend("generator", step, coupled_losses())
        elif system.discriminator_first:
            losses = self._descend("discriminator", step, discriminator_losses())
            losses |= self._descend("generator", step, generator_losses())
        else:
            losses = self._descend("generator", step, generator_losses())
            losses |= self._descend("discriminator", step, discriminator_losses())
        self.scaler.update()
        losses = {key: loss / options.accumulate for key, loss in losses.items()}
        if system.observed:
            system.observe(step, average(losses[system.observed]))
        return losses

    def _generate(self, source: Tensor, target: Tensor) -> Images:
        with self._autocast():
            return self.system.generate(source, target)

    def _descend(self, name: str, step: int, batches: Iterable[Losses]) -> Losses:
        """Take a step of an optimizer down the mean weighted loss; return the losses' sums."""
        weights = self.system.weights(step)
        optimizer = self.optimizers[name]
        optimizer.zero_grad()
        sums: Losses = {}
        for losses in batches:
            total = torch.stack([weights[key] * loss for key, loss in losses.items()]).sum()
            self.scaler.scale(total / self.options.accumulate).backward()
            sums = {key: sums.get(key, 0) + loss.detach() for key, loss in losses.items()}
        (group,) = optimizer.param_groups
        average_gradients(group["params"])
        group["lr"] = self.rate(name, step)
        self.scaler.step(optimizer)  # skips the step if a gradient has overflowed in float16
        if self.average and name == "generator":
            self.average.update_parameters(self.system.generator)
        return sums

    def rate(self, name: str, step: int) -> float:
        """Return an optimizer's learning rate: constant at first, then falling linearly to 0."""
        options = self.options
        first = {"generator": options.lr_generator, "discriminator": options.lr_discriminator}
        left, falling = options.steps - step, options.decay * options.steps
        return first[name] * (left / falling if left < falling else 1.0)

    def _autocast(self) -> torch.autocast:
        """Return a context in which networks run in half precision, if the options say so."""
        enabled = self.options.amp != "none"
        return torch.autocast(self.process.device.type, dtype=self.precision, enabled=enabled)

    # --------------------------------------------------------------------------------------------
    # State
    # --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return everything that changes from step to step, and the generator for inference.

        All processes have to call this at the same time; only the first one gets the whole state.
        """
        return {
            "system": self.system.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "generator": self.generator.state_dict(),
            "pools": collected(self.system.pool_state()),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state`; raise ValueError with one sentence if it is of another kind."""
        if len(state["pools"]) != self.process.world_size:
            raise ValueError(
                f"it was written by {len(state['pools'])} processes, not {self.process.world_size}"
            )
        if (state["average"] is None) != (self.average is None):
            raise ValueError("one of it and the options has an ema, the other has none")
        try:
            self.system.load_state_dict(state["system"])
            for name, optimizer in self.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            if state["scaler"]:  # empty without fp16
                self.scaler.load_state_dict(state["scaler"])
            if self.average:
                self.average.load_state_dict(state["average"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                "its networks or optimizers are others than those of the options"
            ) from error
        self.system.load_pool_state(state["pools"][self.process.rank], self.process.device)


def make_optimizers(system: System, options: Options) -> dict[str, Optimizer]:
    """Make an Adam for the generators and one for the discriminators, or one for all of them.

    With one for all, as in the authors' code, the generator's pass gives the discriminators a
    gradient too. They minimize BCE(real, 1) + BCE(fake, 0) + lambda_gan BCE(fake, 1). Where real
    and fake are alike, their best answer is then 2/3 instead of 1/2, and the generator's term is
    ln(3/2).
    """
    parts = {"generator": system.generators, "discriminator": system.discriminators}
    weights = {name: list(part.parameters()) for name, part in parts.items()}
    if options.coupled_adam:
        weights = {"generator": [*weights["generator"], *weights["discriminator"]]}
    return {name: Adam(group, betas=options.betas) for name, group in weights.items()}


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


@contextmanager
def _frozen(networks: nn.Module) -> Iterator[None]:
    """Freeze the weights of these networks, which then get no gradients."""
    networks.requires_grad_(False)
    try:
        yield
    finally:
        networks.requires_grad_(True)
