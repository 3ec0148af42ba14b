# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Displacement fields: how they warp an image, one that is known, and what is measured of them.

A displacement is a tensor ``(1, 3, X, Y, Z)`` of mm along the axes of the grid. It says for each
voxel x of the fixed image where its anatomy lies in the moving image: at x + displacement(x).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.layers import GaussianFilter
from torch import Tensor

from ..common.anatomy import SmoothNoise

WAVELENGTH = 80.0  # mm, of the known warp
KINK = 5.0  # mm, standard deviation of the Gaussian that smooths it
ITERATIONS = 30  # 8 mm are inverted to 0.01 um in 20


def warp(image: Tensor, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
    """The image at x + displacement(x), linearly; beyond its border it goes on as it ends.

    MONAI's ``Warp`` does the same in twice the time and memory.
    """
    size = displacement.shape[2:]
    eye = torch.eye(3, 4, dtype=image.dtype, device=image.device)[None]
    identity = F.affine_grid(eye, [1, 1, *size], align_corners=False)
    # grid_sample counts from -1 to 1 across the image and takes the last axis first.
    scale = [2 / (n * step) for n, step in zip(size, spacing, strict=True)]
    grid = identity + displacement.flip(1).movedim(1, -1) * image.new_tensor(scale[::-1])
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


class KnownWarp(NamedTuple):
    """A warp without folding and its inverse."""

    truth: Tensor  # what a registration has to find: from fixed to moving
    inverse: Tensor  # makes the moving image from one that is aligned with the fixed


def known_warp(
    size: Sequence[int], spacing: Sequence[float], largest: float, seed: int
) -> KnownWarp:
    """A smooth random warp, the same in mm whatever the grid.

    Args:
        size, spacing: of the grid.
        largest: the length in mm of its largest displacement.
        seed: which one.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(size, spacing, strict=True)]
    position = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    noises = [SmoothNoise(rng, WAVELENGTH) for rng in np.random.default_rng(seed).spawn(3)]
    truth = torch.from_numpy(np.stack([noise(position) for noise in noises]))[None]
    # The noise is linear between its nodes: without its kinks it can be inverted between voxels.
    truth = GaussianFilter(3, [KINK / step for step in spacing])(truth)
    truth *= largest / _length(truth).max()
    if jacobian_determinant(truth, spacing).min() <= 0:
        raise ValueError(f"a warp of {largest:g} mm folds: ask for a smaller displacement")
    return KnownWarp(truth, inverse(truth, spacing))


def inverse(displacement: Tensor, spacing: Sequence[float]) -> Tensor:
    """The way back, as the fixed point of v(y) = -u(y + v(y)); of a displacement that is smooth."""
    back = -displacement
    for _ in range(ITERATIONS):
        back = -warp(displacement, back, spacing)
    return back


def target_registration_error(displacement: Tensor, truth: Tensor) -> Tensor:
    """Per voxel ``(1, 1, X, Y, Z)`` of the fixed image, mm in the moving image."""
    return _length(displacement - truth)


def jacobian_determinant(displacement: Tensor, spacing: Sequence[float]) -> Tensor:
    """Of x + displacement(x), ``(1, 1, X, Y, Z)``: the change of volume, not positive in a fold."""
    slopes = torch.gradient(displacement[0], spacing=list(spacing), dim=(1, 2, 3))
    jacobian = torch.stack(slopes, 1).movedim((0, 1), (-2, -1)) + torch.eye(3).to(displacement)
    return torch.linalg.det(jacobian)[None, None]


def _length(displacement: Tensor) -> Tensor:
    return torch.linalg.vector_norm(displacement, dim=1, keepdim=True)
