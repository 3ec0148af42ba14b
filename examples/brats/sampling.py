# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Batches for training that can be asked for by number."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

JITTER = 286 / 256  # CycleGAN's and CUT's: enlarged so far before a random crop


class TrainingPairs:
    """An endless sequence of batches of which each depends on its number only.

    So a run that is resumed goes on exactly, and processes need not talk. Sources come in an order
    that is shuffled anew in every epoch; an unpaired target is an independent uniform draw.
    """

    def __init__(self, source: Tensor, target: Tensor, paired: bool, batch: int, seed: int) -> None:
        self.source, self.target = source, target
        self.paired, self.batch_size, self.seed = paired, batch, seed
        self.order = functools.lru_cache(2)(self._order)

    def steps_per_epoch(self, world_size: int = 1) -> int:
        """Batches per process until each source was seen, rounded up."""
        return -(-len(self.source) // (self.batch_size * world_size))

    def batch(
        self, step: int, augment: str = "none", rank: int = 0, world_size: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Source and target ``(B, 1, ...)`` of process ``rank`` in a step, counted from 0.

        ``augment`` is that of :func:`augmented`.
        """
        first = (step * world_size + rank) * self.batch_size
        positions = range(first, first + self.batch_size)
        pairs = [self._pair(position, augment) for position in positions]
        source, target = zip(*pairs, strict=True)
        return torch.stack(source), torch.stack(target)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.source))

    def _pair(self, position: int, augment: str) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(position, len(self.source))
        index = self.order(epoch)[place]
        rng = np.random.default_rng([self.seed, 1, position])
        if self.paired:
            both = torch.cat([self.source[index], self.target[index]])
            source, target = augmented(both, augment, rng).split(1)
            return source, target
        other = rng.integers(len(self.target))
        return (
            augmented(self.source[index], augment, rng),
            augmented(self.target[other], augment, rng),
        )


def augmented(image: Tensor, how: str, rng: np.random.Generator) -> Tensor:
    """``(C, H, W)``: nothing, left-right flips, or a random crop of the enlarged image as well."""
    if how == "none":
        return image
    if how == "jitter":
        mode = "trilinear" if image.dim() == 4 else "bilinear"
        large = [round(n * JITTER) for n in image.shape[1:]]
        shape, image = image.shape, functional.interpolate(image[None], large, mode=mode)[0]
        for axis in range(1, image.dim()):
            spare = image.shape[axis] - shape[axis]
            image = image.narrow(axis, int(rng.integers(spare + 1)), shape[axis])
    return image.flip(1) if rng.random() < 0.5 else image
