# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the loss is used for: whole training steps of the examples, with any loss in its place.

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

STEPS = 1000  # of the run that a step is taken from the middle of


class Workload(ABC):
    """What all workloads have.

    Attributes:
        images: of the shape in which the loss gets its own two.
        what: a step in one sentence.
    """

    images: tuple[Tensor, Tensor]
    optimizers: tuple[Optimizer, ...]
    what: str

    @abstractmethod
    def step(self, function: LossFunction) -> tuple[Tensor, ...]:
        """Take one whole training step; return its losses."""

    def lasting(self) -> list[Tensor]:
        """List what is there before a step and after it."""
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
        options: of NEC. The images are noise: no time depends on what they show.
        device: of all of it.
    """

    def __init__(self, options: Options, device: str) -> None:
        self.learner = Learner(options, Process(device=torch.device(device)))
        shape = 1, 1, *options.data.shape
        source, target = (2 * torch.rand(shape, device=device) - 1 for _ in range(2))
        self.images = source, target
        self.optimizers = tuple(self.learner.optimizers.values())
        system = self.learner.system
        self.what = (
            f"NEC on noise: Adam steps of a MONAI UNet of {millions(system.generator.parameters())}"
            f" parameters, by the loss and by {options.discriminator_scales} PatchDiscriminators "
            f"of {millions(system.discriminators.parameters())} together, and of these."
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
        name: what the images are.
        fixed, moving: ``(1, 1, X, Y, Z)`` of one shape.
    """

    def __init__(self, name: str, fixed: Tensor, moving: Tensor) -> None:
        self.images = fixed, moving
        level = Level(fixed, moving, torch.ones_like(fixed, dtype=torch.bool), (1.0, 1.0, 1.0))
        settings = Settings("ngf", detail=0.5, smoothness=0.1, steps=STEPS)
        self.descent = Descent(level, None, settings)
        self.optimizers = (self.descent.optimizer,)
        self.what = (
            f"Registration of {name}: Adam step of a displacement field of "
            f"{millions([self.descent.knots])} parameters by the loss and MONAI's bending energy."
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
    """Make networks for patches of a volume, of an edge that 16 divides."""
    own = {"data.patch": edge, "amp": "none", "ema": 0, "steps": STEPS}
    return Synthesis(make_options("nec", "volumes", own), device)


def tiny(device: str, dims: int, edge: int) -> Synthesis:
    """Make the same so small that it runs in a moment, for edges of at least 16."""
    own = {"data.dimensions": dims, "data.size": edge, "data.patch": edge, "steps": STEPS}
    small = {"unet_channels": (4, 8), "unet_units": 1, "discriminator_channels": 4}
    return Synthesis(make_options("nec", "paper", own, small, {"discriminator_scales": 2}), device)


def millions(tensors: Iterable[Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors) / 1e6:.2f} M"
