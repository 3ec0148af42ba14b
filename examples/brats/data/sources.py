# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Raw images: slices or volumes of BraTS, or of the phantom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...common.nifti import Array, DataError, read_pair
from ...common.phantom import brain_phantom
from .grid import (
    Grid,
    Window,
    brain_grid,
    check_axial,
    intensity_window,
    slice_grid,
)
from .options import DataOptions
from .split import parse_slices

TONE = 3.0  # the exponent of the phantom's toned T1


class Sample(NamedTuple):
    """An image in both contrasts before normalization, raw ``(H, W)`` or ``(X, Y, Z)``."""

    name: str
    raw: tuple[Array, Array]
    window: tuple[Window, Window]
    labels: NDArray[np.uint8] | None
    grid: Grid
    spacing: float  # mm per pixel of the training grid
    origin: str  # for messages


def brats_slices(
    options: DataOptions, subjects: Sequence[str], files: Sequence[Path]
) -> Iterator[Sample]:
    indices = parse_slices(options.slices)
    first = None
    for subject, t1_path, t2_path in zip(subjects, files[::2], files[1::2], strict=True):
        pair = read_pair(t1_path, t2_path)
        check_axial(pair[0])
        (width, _, depth), (step, *_) = pair[0].grid
        first = first or (width, step)
        if (width, step) != first:
            raise DataError(
                f"{t1_path} has slices of {width}² pixels of {step:g} mm, "
                f"the first subject of {first[0]}² pixels of {first[1]:g} mm"
            )
        if max(indices) >= depth:
            raise DataError(f"{t1_path} has {depth} axial slices: there is no {max(indices)}")
        if options.crop > width:
            raise DataError(f"{t1_path} has slices of {width}² pixels: crop={options.crop} is more")
        grid = slice_grid((width, width), options)
        whole = None
        if options.percentile_scope == "volume":
            whole = tuple(intensity_window(volume.voxels, options) for volume in pair)
        for k in indices:
            raw = tuple(volume.voxels[:, :, k] for volume in pair)
            window = whole or tuple(intensity_window(image, options) for image in raw)
            name = f"{subject}_s{k:03d}" if len(indices) > 1 else subject
            spacing = round(step * (options.crop or width) / options.size, 6)
            yield Sample(
                name, raw, window, None, grid, spacing, f"slice {k} of {t1_path} or its T2"
            )


def brats_volumes(
    options: DataOptions, subjects: Sequence[str], files: Sequence[Path]
) -> Iterator[Sample]:
    for subject, t1_path, t2_path in zip(subjects, files[::2], files[1::2], strict=True):
        t1, t2 = read_pair(t1_path, t2_path)
        raw = t1.voxels, t2.voxels
        window = tuple(intensity_window(image, options) for image in raw)
        brain = (t1.voxels > 0) | (t2.voxels > 0)
        grid = brain_grid(brain, t1.grid[1], options.spacing)
        yield Sample(
            subject, raw, window, None, grid, options.spacing, f"the volume {t1_path} or its T2"
        )


def phantom_samples(options: DataOptions, subjects: Sequence[str]) -> Iterator[Sample]:
    if options.crop:
        raise DataError("crop is for data: of the phantom, phantom_spacing shows more or less")
    spacing = options.phantom_spacing and (options.phantom_spacing,) * options.dimensions
    for subject in subjects:
        brain = brain_phantom(
            (options.size,) * options.dimensions,
            seed=options.seed,
            index=int(subject),
            spacing=spacing,
        )
        # The phantom's axes to the right and front become axes to the left and back.
        t1, t2, labels = (np.ascontiguousarray(image[::-1, ::-1]) for image in brain[:3])
        if options.phantom_target == "toned":
            t2 = (t1 / t1.max()) ** TONE
        if options.phantom_blur:
            t1, t2 = (gaussian_filter(image, options.phantom_blur) for image in (t1, t2))
            t1, t2 = t1 * (labels > 0), t2 * (labels > 0)
        window = tuple(intensity_window(image, options) for image in (t1, t2))
        if options.dimensions == 2:
            grid = slice_grid(t1.shape, options)
        else:
            grid = brain_grid(labels > 0, brain.spacing, brain.spacing[0])
        name = f"phantom-{int(subject):04d}"
        yield Sample(name, (t1, t2), window, labels, grid, brain.spacing[0], name)
