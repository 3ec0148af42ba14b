# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Inference: a generator runs on any number of images, or on a whole NIfTI volume."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

from ...common.nifti import Array, DataError, Volume, as_stored, read_volume
from ..data.grid import (
    BACKGROUND,
    Images,
    brain_grid,
    check_axial,
    intensity_window,
    normalize,
    resize,
    slice_grid,
)
from ..data.options import DataOptions

WINDOWS = 2  # windows of a volume that are in the generator at a time
OVERLAP = 0.5  # share of a window that a neighbour along an axis has too


@torch.no_grad()
def predict(
    generator: nn.Module,
    source: Images,
    batch: int = 8,
    device: torch.device | str = "cpu",
    patch: int = 0,
) -> Images:
    """Run the generator on any number of images; the result is float32, on the CPU.

    Args:
        generator: maps images to images.
        source: slices, of which it sees ``batch`` at a time, or volumes, of which it sees windows.
        batch: the number of slices at a time.
        device: the generator's device.
        patch: voxels along each side of a window of a volume.
    """
    training = generator.training
    generator.eval()
    fake: Images
    if isinstance(source, Tensor):
        fake = torch.cat([generator(part.to(device)).float().cpu() for part in source.split(batch)])
    else:
        windows = SlidingWindowInferer(
            patch, WINDOWS, OVERLAP, mode="gaussian", padding_mode="constant", cval=BACKGROUND
        )
        fake = [windows(volume[None].to(device), generator)[0].float().cpu() for volume in source]
    generator.train(training)
    return fake


def synthesize(
    path: Path,
    out: Path,
    generator: nn.Module,
    options: DataOptions,
    device: torch.device | str = "cpu",
) -> None:
    """Make the T2 of a whole T1 volume on the grid of its file, by slices or sliding windows.

    The intensities are the generator's, with a background near -1. Every slice has its own scale,
    unless the generator was trained on volumes or ``percentile_scope`` is ``"volume"``. Slices
    without contrast, and voxels outside ``crop`` or the brain's box, become -1. Affine and header
    are the input's; only data type and display range change.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{out} must end in .nii or .nii.gz")
    volume = read_volume(path)
    by_dimensions = _by_windows if options.dimensions == 3 else _by_slices
    result = as_stored(by_dimensions(volume, generator, options, device), volume)
    result.header["cal_min"], result.header["cal_max"] = -1, 1
    out.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(result, out)


def _by_slices(
    volume: Volume, generator: nn.Module, options: DataOptions, device: torch.device | str
) -> Array:
    check_axial(volume)
    slices = np.moveaxis(volume.voxels, 2, 0)
    if options.percentile_scope == "volume":
        windows = itertools.repeat(intensity_window(volume.voxels, options), len(slices))
    else:
        windows = (intensity_window(image, options) for image in slices)
    grid = slice_grid(slices.shape[1:], options)
    synthetic = np.full_like(volume.voxels, BACKGROUND)
    for k, (image, window) in enumerate(zip(slices, windows, strict=True)):
        if window[0] < window[1] and image.any():
            source = normalize(image, window, grid, options.anti_aliasing)[None]
            part = synthetic[:, :, k][grid.box]
            part[...] = resize(predict(generator, source, device=device)[0], part.shape)[0].numpy()
    return synthetic


def _by_windows(
    volume: Volume, generator: nn.Module, options: DataOptions, device: torch.device | str
) -> Array:
    window = intensity_window(volume.voxels, options)
    if not window[0] < window[1]:
        raise DataError(f"{volume.path} has no contrast: it is empty or constant")
    grid = brain_grid(volume.voxels > 0, volume.grid[1], options.spacing)
    source = normalize(volume.voxels, window, grid, options.anti_aliasing)
    (fake,) = predict(generator, [source], device=device, patch=options.shape[0])
    synthetic = np.full_like(volume.voxels, BACKGROUND)
    part = synthetic[grid.box]
    part[...] = resize(fake, part.shape)[0].numpy()
    return synthetic
