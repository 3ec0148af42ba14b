# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The training grid: intensity windows, boxes, and images that are normalized and resized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from monai.transforms import CropForeground, Resize, ScaleIntensityRange
from monai.utils import convert_to_tensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ...common.nifti import Array, DataError, Volume

if TYPE_CHECKING:
    from .options import DataOptions

Window = tuple[float, float]
# Slices are a stack (N, 1, H, W), volumes a list of (1, X, Y, Z): no two brains have one shape.
Images = Tensor | list[Tensor]

BACKGROUND = -1.0


def intensity_window(image: Array, options: DataOptions) -> Window:
    """Find the raw intensities that become -1 and 1: percentiles of a slice or a volume.

    The two are equal if the image has no contrast, because it is empty or nearly so.
    """
    values = image[image > 0] if options.percentile_mask == "foreground" else image
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, (options.lower, options.upper))
    return float(low), float(high)


class Grid(NamedTuple):
    """A part of a raw image, and the numbers of pixels to which it is resized."""

    box: tuple[slice, ...]
    shape: tuple[int, ...]


def slice_grid(shape: tuple[int, ...], options: DataOptions) -> Grid:
    """Take the central square of ``crop`` pixels, or everything, and bring it to ``size``."""
    crop = options.crop
    box = tuple(slice((n - crop) // 2, (n + crop) // 2) if crop else slice(None) for n in shape)
    return Grid(box, (options.size,) * len(shape))


def brain_grid(brain: NDArray[np.bool_], steps: Sequence[float], spacing: float) -> Grid:
    """Find the box around a brain, and the number of its voxels of ``spacing`` mm."""
    start, end = CropForeground().compute_bounding_box(brain[None])
    box = tuple(slice(int(low), int(high)) for low, high in zip(start, end, strict=True))
    mm = (step * (part.stop - part.start) for step, part in zip(steps, box, strict=True))
    return Grid(box, tuple(max(round(length / spacing), 1) for length in mm))


def normalize(image: Array, window: Window, grid: Grid, anti_aliasing: bool) -> Tensor:
    """Bring a raw slice or volume to [-1, 1] and to the training grid, ``(1, *grid.shape)``.

    The result is -1 everywhere if the window is empty, as a constant image's is.
    """
    low, high = window
    part = image[grid.box][None]
    if low < high:
        scaled = ScaleIntensityRange(low, high, -1.0, 1.0, clip=True)(part)
    else:
        scaled = np.full_like(part, BACKGROUND)
    scaled = convert_to_tensor(scaled, dtype=torch.float32, track_meta=False)
    return resize(scaled, grid.shape, anti_aliasing)


def resize(image: Tensor, size: tuple[int, ...], anti_aliasing: bool = False) -> Tensor:
    """Resize ``(C, H, W)`` or ``(C, X, Y, Z)`` linearly, with ``align_corners=False``.

    Anti-aliasing blurs an image that gets smaller, and does nothing to one that gets larger. For
    slices torch does it, by a wider filter, as MONAI's ``Resize`` assumes 0 outside the image. For
    volumes torch cannot do it, and around a brain 0 is right.
    """
    if tuple(image.shape[1:]) == size:
        return image
    # Histogram matching depends on ties, so the background has to stay exactly -1. The weights of a
    # filter sum to 1 only up to rounding, which does not matter where an image is 0.
    above = image - BACKGROUND
    if len(size) == 3:
        pairs = zip(size, image.shape[1:], strict=True)
        smaller = anti_aliasing and any(new < old for new, old in pairs)
        change = Resize(size, mode="trilinear", align_corners=False, anti_aliasing=smaller)
        return convert_to_tensor(change(above), track_meta=False) + BACKGROUND
    resized = functional.interpolate(
        above[None], size, mode="bilinear", align_corners=False, antialias=anti_aliasing
    )
    return resized[0] + BACKGROUND


def mask_on_grid(mask: NDArray[np.bool_], grid: Grid) -> Tensor:
    """Bring ``(H, W)`` or ``(X, Y, Z)`` to bool ``(1, *grid.shape)`` by the nearest voxel."""
    image = torch.from_numpy(mask[grid.box])[None, None].float()
    return functional.interpolate(image, grid.shape, mode="nearest-exact")[0] > 0


def check_axial(volume: Volume) -> None:
    """Raise DataError unless axial slices and pixels are square; resizing would distort others."""
    (width, height, _), (x, y, _) = volume.grid
    if width != height or abs(x - y) > 1e-3:
        raise DataError(
            f"{volume.path} must have square axial slices of square pixels, "
            f"got {width} x {height} of {x:g} x {y:g} mm"
        )
