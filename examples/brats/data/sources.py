# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Raw images: slices or volumes of BraTS, or of the phantom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...common.nifti import Array, DataError, Volume, read_pair, read_volume
from ...common.phantom import brain_phantom
from .files import Source, spread
from .grid import Grid, Window, brain_grid, check_axial, intensity_window, slice_grid
from .options import DataOptions
from .split import parse_slices

TONE = 3.0  # the exponent of the phantom's toned T1


class Sample(NamedTuple):
    """An image before normalization, raw ``(H, W)`` or ``(X, Y, Z)``, in one contrast or both."""

    name: str
    raw: tuple[Array, ...]
    window: tuple[Window, ...]
    labels: NDArray[np.uint8] | None
    grid: Grid
    spacing: float  # mm per pixel of the training grid
    origin: str  # for messages


def _read(source: Source) -> tuple[tuple[Volume, ...], str]:
    """Read the files of a source; return also their name for messages."""
    first = source.paths[0]
    if len(source.paths) == 2:
        return read_pair(*source.paths), f"{first} or its T2"
    return (read_volume(first),), str(first)


def brats_slices(
    options: DataOptions, sources: Sequence[Source], limit: int = 0
) -> Iterator[Sample]:
    """Yield the slices of volumes, at most ``limit`` of each, and those in files of their own."""
    indices = parse_slices(options.slices)
    chosen = spread(indices, limit)
    first = None
    for source in sources:
        volumes, origin = _read(source)
        path, is_slice = volumes[0].path, source.number is not None
        check_axial(volumes[0])
        (width, _, depth), (step, *_) = volumes[0].grid
        first = first or (width, step)
        if (width, step) != first:
            raise DataError(
                f"{path} has slices of {width}² pixels of {step:g} mm, "
                f"the first subject of {first[0]}² pixels of {first[1]:g} mm"
            )
        if is_slice and depth > 1:
            raise DataError(f"{path} has {depth} slices: its name promises one")
        if not is_slice and max(chosen) >= depth:
            raise DataError(f"{path} has {depth} axial slices: there is no {max(chosen)}")
        if options.crop > width:
            raise DataError(f"{path} has slices of {width}² pixels: crop={options.crop} is more")
        grid = slice_grid((width, width), options)
        whole = None
        if options.percentile_scope == "volume":
            if is_slice:
                raise DataError(f"{path} is one slice: percentile_scope=volume needs volumes")
            whole = tuple(intensity_window(volume.voxels, options) for volume in volumes)
        for k in (0,) if is_slice else chosen:
            raw = tuple(volume.voxels[:, :, k] for volume in volumes)
            window = whole or tuple(intensity_window(image, options) for image in raw)
            number = k if source.number is None else source.number
            one = not is_slice and len(indices) == 1
            name = source.subject if one else f"{source.subject}_s{number:03d}"
            spacing = round(step * (options.crop or width) / options.size, 6)
            yield Sample(name, raw, window, None, grid, spacing, f"slice {number} of {origin}")


def brats_volumes(options: DataOptions, sources: Sequence[Source]) -> Iterator[Sample]:
    for source in sources:
        volumes, origin = _read(source)
        raw = tuple(volume.voxels for volume in volumes)
        window = tuple(intensity_window(image, options) for image in raw)
        brain = np.any([image > 0 for image in raw], axis=0)
        grid = brain_grid(brain, volumes[0].grid[1], options.spacing)
        name, spacing = source.subject, options.spacing
        yield Sample(name, raw, window, None, grid, spacing, f"the volume {origin}")


def phantom_samples(options: DataOptions, subjects: Sequence[str]) -> Iterator[Sample]:
    if options.crop:
        raise DataError("crop is for data: the head of the phantom just fits into its images")
    for subject in subjects:
        shape = (options.size,) * options.dimensions
        brain = brain_phantom(shape, seed=options.seed, index=int(subject))
        # The phantom's axes to the right and front become axes to the left and back.
        t1, t2, labels = (np.ascontiguousarray(image[::-1, ::-1]) for image in brain[:3])
        if options.phantom_target == "toned":
            t2 = (t1 / t1.max()) ** TONE
        window = tuple(intensity_window(image, options) for image in (t1, t2))
        if options.dimensions == 2:
            grid = slice_grid(t1.shape, options)
        else:
            grid = brain_grid(labels > 0, brain.spacing, brain.spacing[0])
        name = f"phantom-{int(subject):04d}"
        yield Sample(name, (t1, t2), window, labels, grid, brain.spacing[0], name)
