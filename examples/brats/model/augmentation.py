# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Differentiable augmentation of what a discriminator sees, real and fake; Zhao et al., 2020.

S. Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020. The
generator learns through it, so that it does not learn to make augmented images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.grid import BACKGROUND

SHIFT = 1 / 8  # of the image's side, the largest translation
HOLE = 1 / 2  # of the image's side, the side of the part that is cut out
BRIGHTNESS = 0.5  # the largest change, of the range [-1, 1]


def augmented(images: Tensor, how: str) -> Tensor:
    """Change each of the images ``(B, 1, ...)`` at random.

    Args:
        images: slices or volumes in [-1, 1].
        how: ``"none"``, or ``+`` between any of ``"translation"``, ``"cutout"``, ``"brightness"``.
    """
    for name in how.split("+"):
        if name != "none":
            images = torch.stack([_CHANGES[name](image) for image in images])
    return images


def _translated(image: Tensor) -> Tensor:
    spare = [round(SHIFT * n) for n in image.shape[1:]]
    padding = [n for spare_n in reversed(spare) for n in (spare_n, spare_n)]
    shape, image = image.shape, F.pad(image, padding, value=BACKGROUND)
    for axis, room in enumerate(spare, 1):
        image = image.narrow(axis, _draw(2 * room + 1), shape[axis])
    return image


def _cut_out(image: Tensor) -> Tensor:
    kept = torch.zeros_like(image, dtype=torch.bool)
    for axis, n in enumerate(image.shape[1:], 1):
        side = round(HOLE * n)
        first = _draw(n + 1) - side // 2
        place = torch.arange(n, device=image.device)
        outside = (place < first) | (place >= first + side)
        kept |= outside.reshape([-1 if k == axis else 1 for k in range(image.dim())])
    return torch.where(kept, image, BACKGROUND)


def _brightened(image: Tensor) -> Tensor:
    return image + BRIGHTNESS * (2 * torch.rand((), device=image.device) - 1)


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))


_CHANGES = {"translation": _translated, "cutout": _cut_out, "brightness": _brightened}
