# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Batches for training by their number, of slices or of crops of volumes."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from monai.transforms import SpatialPad
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from .grid import BACKGROUND, Images

JITTER = 286 / 256  # CycleGAN and CUT enlarge an image by this factor before a random crop
FOREGROUND = 0.2  # the share of a crop that has to be brain
TRIES = 20  # random places; nearly every one has enough brain, and otherwise the middle is taken

Pair = tuple[Tensor, Tensor]


class Patches:
    """Crops of volumes, source and target from the same place.

    A place is, for each axis, a share of the way from one end of the brain's box to the other. So
    it has about the same anatomy in every brain, and a discriminator cannot tell real crops from
    synthetic ones by their place. A crop that is larger than its volume is filled with background.

    Args:
        size: voxels along each side.
        source, target: the masks of the brains of both groups.
    """

    def __init__(self, size: int, source: Images, target: Images) -> None:
        self.size, self.brains = size, (source, target)
        self.pad = SpatialPad((size,) * 3, value=BACKGROUND)

    def draw(self, indices: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw a place where both volumes have enough brain; return the middle if there is none."""
        brains = [brain[index] for brain, index in zip(self.brains, indices, strict=True)]
        wanted = FOREGROUND * self.size**3
        if min(map(_count, brains)) >= wanted:  # otherwise no crop has enough
            for _ in range(TRIES):
                place = rng.random(3)
                if min(_count(self._part(brain, place)) for brain in brains) >= wanted:
                    return place
        return np.full(3, 0.5)

    def cut(self, volume: Tensor, place: NDArray[np.float64]) -> Tensor:
        """Cut a volume ``(C, X, Y, Z)`` to ``(C, size, size, size)`` at a place."""
        return convert_to_tensor(self.pad(self._part(volume, place)), track_meta=False)

    def _part(self, volume: Tensor, place: NDArray[np.float64]) -> Tensor:
        for axis, share in enumerate(place, 1):
            spare = volume.shape[axis] - self.size
            if spare > 0:
                volume = volume.narrow(axis, round(share * spare), self.size)
        return volume


def _count(brain: Tensor) -> int:
    return np.count_nonzero(brain.numpy())  # ten times as fast as a sum of torch


class TrainingPairs:
    """An endless sequence of batches, each of which depends only on its number.

    So a resumed run continues exactly, and processes need not communicate. Sources come in an order
    that is shuffled again in every epoch; an unpaired target is an independent uniform draw.
    """

    def __init__(
        self,
        source: Images,
        target: Images,
        paired: bool,
        batch: int,
        seed: int,
        patches: Patches | None = None,
    ) -> None:
        self.source, self.target, self.patches = source, target, patches
        self.paired, self.batch_size, self.seed = paired, batch, seed
        self.order = functools.lru_cache(2)(self._order)

    def steps_per_epoch(self, world_size: int = 1) -> int:
        """Count the batches per process until each source was seen, rounded up."""
        return -(-len(self.source) // (self.batch_size * world_size))

    def batch(self, step: int, augment: str = "none", rank: int = 0, world_size: int = 1) -> Pair:
        """Make source and target ``(B, 1, ...)`` of process ``rank`` in a step, counted from 0.

        ``augment`` is the argument ``how`` of :func:`augmented`.
        """
        first = (step * world_size + rank) * self.batch_size
        positions = range(first, first + self.batch_size)
        pairs = [self._pair(position, augment) for position in positions]
        source, target = zip(*pairs, strict=True)
        return torch.stack(source), torch.stack(target)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.source))

    def _pair(self, position: int, augment: str) -> Pair:
        epoch, place = divmod(position, len(self.source))
        index = int(self.order(epoch)[place])
        rng = np.random.default_rng([self.seed, 1, position])
        other = index if self.paired else int(rng.integers(len(self.target)))
        source, target = self.source[index], self.target[other]
        if self.patches:
            where = self.patches.draw((index, other), rng)
            source, target = (self.patches.cut(image, where) for image in (source, target))
        if self.paired:
            source, target = augmented(torch.cat([source, target]), augment, rng).split(1)
            return source, target
        return augmented(source, augment, rng), augmented(target, augment, rng)


def read_ahead(
    batch: Callable[[int], Pair], steps: range, workers: int, pin_memory: bool
) -> Iterator[Sequence[Tensor]]:
    """Make the batches of these steps in their order, by ``workers`` processes or by this one.

    Args:
        batch: makes source and target of a step.
        steps: the numbers of the steps.
        workers: the number of processes, on which the batches do not depend.
        pin_memory: whether batches are pinned, which speeds up their way to a GPU.
    """
    # Volumes are mapped files, and forked workers share their pages.
    context = "fork" if workers else None
    return iter(
        DataLoader(
            _Steps(batch),
            batch_size=None,
            sampler=steps,
            num_workers=workers,
            pin_memory=pin_memory,
            multiprocessing_context=context,
            worker_init_fn=_outlive_signals,
        )
    )


def _outlive_signals(worker: int) -> None:
    """Ignore signals in a worker: the trainer gets them too, saves, and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Steps(Dataset[Pair]):
    def __init__(self, batch: Callable[[int], Pair]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> Pair:
        return self.batch(step)


def augmented(image: Tensor, how: str, rng: np.random.Generator) -> Tensor:
    """Augment ``(C, ...)`` by nothing, by left-right flips, or also by enlarging and cropping."""
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
