# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The images of four groups of subjects, from BraTS or the phantom, and pairs for training.

The folder of the data holds one folder per subject, ``<ID>/<ID>-t1n.nii.gz`` and
``<ID>/<ID>-t2w.nii.gz`` as in BraTS 2023, or the names of older years. As in the paper, the
training images are T1 of one group and T2 of another. Without a folder the brain phantom stands in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ...common.nifti import DataError
from . import cache
from .grid import Images, mask_on_grid, normalize
from .options import DataOptions
from .sampling import Patches, TrainingPairs
from .sources import Sample, brats_slices, brats_volumes, phantom_samples
from .split import find_files, parse_slices, split_subjects


@dataclass(frozen=True)
class ImageSet:
    """Images of one group of subjects; axes point left, back (and top), background is -1.

    Attributes:
        names: the subject, or ``<subject>_s<slice>`` where several slices are taken.
        t1, t2: float32 in [-1, 1], slices or volumes.
        brain: bool, the same shapes: where either contrast is positive in raw intensities.
        labels: uint8, the same shapes: position in ``phantom.TISSUES``; None for data.
        spacing: mm per pixel of this grid.
    """

    names: list[str]
    t1: Images
    t2: Images
    brain: Images
    labels: Images | None
    spacing: float

    def __len__(self) -> int:
        return len(self.names)

    @property
    def subjects(self) -> list[str]:
        """The subject of each image."""
        return [re.sub(r"_s\d+$", "", name) for name in self.names]


@dataclass(frozen=True)
class Data:
    """The images of the four groups.

    Unpaired training takes the T1 of ``source`` and the T2 of ``target``. Paired training takes
    both from ``source``.
    """

    source: ImageSet
    target: ImageSet
    validation: ImageSet
    test: ImageSet


def load_data(options: DataOptions) -> Data:
    """Load all images, from the cache if they are there; raise DataError if they cannot be used.

    An image without contrast (an empty slice, or one that the percentiles leave constant) is
    refused; from a range of slices it is left out, with a warning while images are prepared.
    """
    groups = split_subjects(options)
    # All files are found before the first is read, so that a missing one is reported at once.
    files = {name: find_files(options, subjects) for name, subjects in groups.items()}
    make = _image_set if options.dimensions == 2 else _volume_set
    sets = [make(options, name, groups[name], files[name]) for name in groups]
    if len({images.spacing for images in sets}) > 1:
        raise DataError(f"the pixel sizes of the groups of {options.data} differ")
    return Data(*sets)


def training_pairs(
    data: Data, paired: bool, batch_size: int, seed: int, patch: int = 0
) -> TrainingPairs:
    """Make pairs of the first group, or unpaired ones: T1 of the first, T2 of the second group.

    From volumes the pairs are crops of ``patch`` voxels along each side.
    """
    source, target = data.source, data.source if paired else data.target
    patches = Patches(patch, source.brain, target.brain) if isinstance(source.t1, list) else None
    return TrainingPairs(source.t1, target.t2, paired, batch_size, seed, patches)


# ------------------------------------------------------------------------------------------------
# From subjects to images
# ------------------------------------------------------------------------------------------------


def _image_set(
    options: DataOptions, name: str, subjects: Sequence[str], files: Sequence[Path]
) -> ImageSet:
    """Load one group from the cache, or prepare it."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    path = cache.path_of(options, name, [subjects, stats])
    known = cache.load(path)
    if known is None:
        if options.data is None:
            samples = phantom_samples(options, subjects)
        elif options.dimensions == 2:
            samples = brats_slices(options, subjects, files)
        else:
            samples = brats_volumes(options, subjects, files)
        cache.save(vars(_prepare(options, name, samples)), path)
        known = cache.load(path)  # the pages of mapped files can be dropped from memory
    if known is None:
        raise DataError(f"{path} cannot be read back, choose another cache")
    return ImageSet(**known)


def _volume_set(
    options: DataOptions, name: str, subjects: Sequence[str], files: Sequence[Path]
) -> ImageSet:
    """Load one group of volumes, each from a file of its own, from which crops can be read."""
    bar = tqdm(subjects, desc=f"preparing {name}", unit="volume", leave=False, disable=None)
    sets = [
        _image_set(options, subject, [subject], files[2 * k : 2 * k + 2])
        for k, subject in enumerate(bar)
    ]

    def volumes_of(kind: str) -> list[Tensor]:
        return [getattr(image_set, kind)[0] for image_set in sets]

    return ImageSet(
        names=[image_set.names[0] for image_set in sets],
        **{kind: volumes_of(kind) for kind in ("t1", "t2", "brain")},
        labels=None if sets[0].labels is None else volumes_of("labels"),
        spacing=sets[0].spacing,
    )


def _prepare(options: DataOptions, name: str, samples: Iterable[Sample]) -> ImageSet:
    """Normalize the samples on the training grid, and collect them in a set."""
    several = options.dimensions == 2 and len(parse_slices(options.slices)) > 1
    images: dict[str, list[Tensor]] = {kind: [] for kind in ("t1", "t2", "brain", "labels")}
    names, empty = [], []
    for sample in tqdm(samples, desc=f"preparing {name}", unit="image", leave=False, disable=None):
        (t1, t2), grid = sample.raw, sample.grid
        if not (t1.any() and t2.any() and all(low < high for low, high in sample.window)):
            if not several:
                raise DataError(f"{sample.origin} has no contrast: it is empty or constant")
            empty.append(sample.origin)
            continue
        names.append(sample.name)
        for kind, raw, window in zip(("t1", "t2"), sample.raw, sample.window, strict=True):
            images[kind].append(normalize(raw, window, grid, options.anti_aliasing))
        images["brain"].append(mask_on_grid((t1 > 0) | (t2 > 0), grid))
        if sample.labels is not None:
            images["labels"].append(torch.from_numpy(sample.labels[grid.box].copy())[None])
    if not names:
        raise DataError(f"no image of {name} has contrast, the first is {empty[0]}")
    if empty:
        warnings.warn(
            f"{name}: {len(empty)} slices without contrast are left out, the first is {empty[0]}",
            stacklevel=2,
        )
    stacks = {kind: torch.stack(parts) if parts else None for kind, parts in images.items()}
    return ImageSet(names=names, spacing=sample.spacing, **stacks)
