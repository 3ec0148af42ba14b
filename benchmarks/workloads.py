# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Workloads: whole training steps of the examples, in which the loss can be exchanged.

A step frees its gradients, so that only parameters, states of the optimizers and images outlive it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from examples.brats.options import Options, make_options
from examples.brats.train.distributed import Process
from examples.brats.train.learner import Learner
from examples.common.measure import LossFunction
from examples.registration.register import Descent, Level, Settings

STEPS = 1000  # the length of a run, of which a step in the middle is measured


class Workload(ABC):
    """A training step in which the loss can be exchanged.

    Attributes:
        images: two images of the shape that the loss gets.
        optimizers: the optimizers of all parameters.
        what: a sentence that describes the step.
    """

    images: tuple[Tensor, Tensor]
    optimizers: tuple[Optimizer, ...]
    what: str

    @abstractmethod
    def step(self, function: LossFunction) -> tuple[Tensor, ...]:
        """Take one whole training step; return its losses."""

    def lasting(self) -> list[Tensor]:
        """List the tensors that exist before a step and after it."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
        return [
            *self.images,
            *(parameter for group in groups for parameter in group["params"]),
            *(moment for state in states for moment in state.values()),
        ]


class Synthesis(Workload):
    """NEC: a generator takes its contrast from a discriminator and its anatomy from the loss.

    Args:
        options: the options of NEC. The images are noise, on which no time depends.
        device: the device of the networks and the images.
    """

    def __init__(self, options: Options, device: str) -> None:
        self.learner = Learner(options, Process(device=torch.device(device)))
        shape = 1, 1, *options.data.shape
        source, target = (2 * torch.rand(shape, device=device) - 1 for _ in range(2))
        self.images = source, target
        self.optimizers = tuple(self.learner.optimizers.values())
        system = self.learner.system
        self.what = (
            f"NEC on noise: a MONAI UNet of {millions(system.generator.parameters())} parameters "
            f"and {options.discriminator_scales} PatchDiscriminators, which have "
            f"{millions(system.discriminators.parameters())} together, take a step of Adam each."
        )

    def step(self, function: LossFunction) -> tuple[Tensor, ...]:
        self.learner.system.ngf_loss = function
        losses = self.learner.learn(STEPS // 2, *self.images)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        return tuple(losses[name] for name in ("gan", "ngf", "d_real", "d_fake"))


class Registration(Workload):
    """Deformable registration: the knots of a displacement, warp, the loss and a regularizer.

    Args:
        name: says what the images show.
        fixed, moving: ``(1, 1, X, Y, Z)`` of one shape.
    """

    def __init__(self, name: str, fixed: Tensor, moving: Tensor) -> None:
        self.images = fixed, moving
        level = Level(fixed, moving, torch.ones_like(fixed, dtype=torch.bool), (1.0, 1.0, 1.0))
        settings = Settings("ngf", detail=0.5, smoothness=0.1, steps=STEPS)
        self.descent = Descent(level, None, settings)
        self.optimizers = (self.descent.optimizer,)
        self.what = (
            f"Registration of {name}: a displacement field of {millions([self.descent.knots])} "
            "parameters takes a step of Adam by the loss and MONAI's bending energy."
        )

    def step(self, function: LossFunction) -> tuple[Tensor, ...]:
        losses: list[Tensor] = []

        def similarity(warped: Tensor) -> Tensor:
            loss = function(warped, self.images[0])
            losses.append(loss.detach())
            return loss

        self.descent.similarity = similarity
        self.descent.step()
        return tuple(losses)


def paper_2d(device: str) -> Synthesis:
    """Make the networks and the images of the paper."""
    return Synthesis(make_options("nec", "paper", {"steps": STEPS}), device)


def unet_3d(device: str, edge: int) -> Synthesis:
    """Make networks for patches of a volume; their edge has to be a multiple of 16."""
    changes = {"data.patch": edge, "amp": "none", "ema": 0, "steps": STEPS}
    return Synthesis(make_options("nec", "volumes", changes), device)


def tiny(device: str, dims: int, edge: int) -> Synthesis:
    """Make networks so small that a step takes a moment, for edges of at least 16."""
    changes = {"data.dimensions": dims, "data.size": edge, "data.patch": edge, "steps": STEPS}
    small = {"unet_channels": (4, 8), "unet_units": 1, "discriminator_channels": 4}
    return Synthesis(
        make_options("nec", "paper", changes, small, {"discriminator_scales": 2}), device
    )


def millions(tensors: Iterable[Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors) / 1e6:.2f} M"
