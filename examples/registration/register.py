# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The registration: find a displacement, from coarse to fine, by any similarity of two images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from monai.losses import (
    BendingEnergyLoss,
    GlobalMutualInformationLoss,
    LocalNormalizedCrossCorrelationLoss,
)
from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import PolynomialLR

import nec_ext

from .warp import warp

LOSSES = {"ngf": "NGF", "lncc": "LNCC", "mi": "MI"}
BACKENDS = {"fused": nec_ext.ngf_loss, "eager": nec_ext.reference.ngf_loss}
KNOT_STEP = 2  # voxels from one knot of the displacement to the next

Similarity = Callable[[Tensor], Tensor]  # rates the warped image: the smaller, the better


@dataclass(frozen=True)
class Settings:
    """The loss of a registration, its regularizer and its optimization."""

    loss: str  # of LOSSES
    detail: float  # eta of NGF's eps, the width of LNCC's window in voxels, or the bins of MI
    smoothness: float  # weight of the bending energy
    backend: str = "fused"  # of the NGF loss
    steps: int = 50  # per level
    rate: float = 0.2  # the length of the first step in voxels; it falls linearly to 0
    options: Mapping[str, Any] = field(default_factory=dict)  # further options of the NGF loss


class Level(NamedTuple):
    """Both images ``(1, 1, X, Y, Z)`` in [0, 1] on one grid of the pyramid."""

    fixed: Tensor
    moving: Tensor
    mask: Tensor  # bool: the voxels that are compared
    spacing: tuple[float, ...]


def pyramid(
    fixed: Tensor, moving: Tensor, brain: Tensor, spacing: Sequence[float], levels: int
) -> list[Level]:
    """Make the levels, from the coarsest grid to the images' own; each halves the spacing."""
    grids = []
    for factor in (2**k for k in reversed(range(levels))):
        shrink = partial(F.avg_pool3d, kernel_size=factor)
        # The mask includes a voxel around the brain, as its outline is an edge of both images.
        mask = F.max_pool3d(shrink(brain.to(fixed)), 3, stride=1, padding=1) > 0
        steps = tuple(factor * step for step in spacing)
        grids.append(Level(shrink(fixed), shrink(moving), mask, steps))
    return grids


def similarity(settings: Settings, level: Level) -> Similarity:
    """Make the loss of a level, a function of the warped image; all losses have the same mask."""
    fixed, mask = level.fixed, level.mask
    if settings.loss == "ngf":
        options = {"spacing": level.spacing, "operator": "central", **settings.options}
        eps, target_eps = (
            nec_ext.estimate_eps(
                image, settings.detail, options["operator"], options["spacing"], mask=mask
            )
            for image in (level.moving, fixed)
        )
        ngf = partial(BACKENDS[settings.backend], eps=eps, target_eps=target_eps, **options)
        return lambda warped: ngf(warped, fixed, mask=mask)
    if settings.loss == "lncc":
        lncc = LocalNormalizedCrossCorrelationLoss(3, int(settings.detail), reduction="none")
        return lambda warped: lncc(warped, fixed)[mask].mean()
    mi = GlobalMutualInformationLoss(num_bins=int(settings.detail))
    inside = fixed[mask][None, None]
    return lambda warped: mi(warped[mask][None, None], inside)


class Descent:
    """The optimization on one level, by Adam.

    Adam moves knots, and the displacement is linear between them. A vector per voxel would follow
    the noise.
    """

    def __init__(self, level: Level, start: Tensor | None, settings: Settings) -> None:
        self.level = level
        self.size = level.fixed.shape[2:]
        self.voxel = sum(level.spacing) / 3
        knots = [n // KNOT_STEP for n in self.size]
        if start is None:
            start = level.fixed.new_zeros(1, 3, *knots)
        self.knots = F.interpolate(start, knots, mode="trilinear").requires_grad_()  # mm
        self.similarity = similarity(settings, level)
        self.bending = BendingEnergyLoss()
        self.smoothness = settings.smoothness
        self.optimizer = Adam([self.knots], settings.rate * self.voxel)
        self.schedule = PolynomialLR(self.optimizer, settings.steps)

    def displacement(self) -> Tensor:
        """Compute the displacement on the grid of the level, in mm."""
        return F.interpolate(self.knots, self.size, mode="trilinear")

    def step(self) -> None:
        warped = warp(self.level.moving, self.displacement(), self.level.spacing)
        bending = self.bending(self.knots / self.voxel)
        (self.similarity(warped) + self.smoothness * bending).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()


def register(
    levels: Sequence[Level], settings: Settings, after_step: Callable[[], object] = lambda: None
) -> Descent:
    """Register on all levels, and return the descent on the finest one."""
    knots = None
    for level in levels:
        descent = Descent(level, knots, settings)
        for _ in range(settings.steps):
            descent.step()
            after_step()
        knots = descent.knots.detach()
    return descent
