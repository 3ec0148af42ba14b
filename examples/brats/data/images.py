# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The images of the groups of subjects, from BraTS or the phantom, and pairs for training.

The folder of the data holds volumes, ``<ID>-t1n.nii.gz`` and ``<ID>-t2w.nii.gz`` as in BraTS 2023,
or the names of older years, and slices, ``<ID>-t1n_s080.nii.gz``, in any folders. As in the paper,
the training images are T1 of one group and T2 of another. Without a folder the brain phantom stands
in.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ...common.nifti import DataError
from . import cache
from .files import KINDS, Source, find_sources, find_subjects
from .grid import Images, mask_on_grid, normalize
from .options import DataOptions
from .sampling import Patches, TrainingPairs
from .sources import Sample, brats_slices, brats_volumes, phantom_samples
from .split import parse_slices, split_subjects


@dataclass(frozen=True)
class ImageSet:
    """Images of one group of subjects; axes point left, back (and top), background is -1.

    Attributes:
        names: the subject, or ``<subject>_s<slice>`` where several slices are taken.
        t1, t2: float32 in [-1, 1], slices or volumes; empty if the group was read without them.
        brain: bool, the same shapes: where a contrast is positive in raw intensities.
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
    """The images of all groups.

    Unpaired training takes the T1 of ``source`` and the T2 of ``target``. Paired training takes
    both from ``pairs``, which is ``source`` unless the split has a group for it.
    """

    source: ImageSet
    target: ImageSet
    validation: ImageSet
    test: ImageSet
    pairs: ImageSet


def load_data(options: DataOptions) -> Data:
    """Load all images, from the cache if they are there; raise DataError if they cannot be used.

    An image without contrast (an empty slice, or one that the percentiles leave constant) is
    refused; from a range of slices it is left out, with a warning while images are prepared.
    """
    subjects = find_subjects(options) if options.data is not None else {}
    groups = split_subjects(options, subjects)
    kinds: dict[str, Sequence[str]] = dict.fromkeys(groups, KINDS)
    if "train_paired" in groups:  # the others are read in one contrast, and may lack the other
        kinds |= {"train_t1": ("t1",), "train_t2": ("t2",)}
        if options.paired_t1:
            groups["train_t1"] = list(dict.fromkeys(groups["train_t1"] + groups["train_paired"]))
    elif options.paired_t1:
        raise DataError("paired_t1 needs a split with a group train_paired")
    limits = {name: options.training_slices * name.startswith("train") for name in groups}
    sources: dict[str, list[Source]] = {name: [] for name in groups}
    if options.data is not None:
        # All files are found before the first is read: a missing one is reported at once.
        sources = {
            name: find_sources(options, subjects, names, kinds[name], limits[name])
            for name, names in groups.items()
        }
    make = _image_set if options.dimensions == 2 else _volume_set
    sets = {
        name: make(options, Group(name, names, kinds[name], sources[name], limits[name]))
        for name, names in groups.items()
    }
    if len({images.spacing for images in sets.values()}) > 1:
        raise DataError(f"the pixel sizes of the groups of {options.data} differ")
    pairs = sets.pop("train_paired", sets["train_t1"])
    return Data(*sets.values(), pairs)


def training_pairs(
    data: Data, paired: bool, batch_size: int, seed: int, patch: int = 0
) -> TrainingPairs:
    """Make pairs of one group, or unpaired ones: T1 of the first, T2 of the second group.

    From volumes the pairs are crops of ``patch`` voxels along each side.
    """
    source, target = (data.pairs, data.pairs) if paired else (data.source, data.target)
    patches = Patches(patch, source.brain, target.brain) if isinstance(source.t1, list) else None
    return TrainingPairs(source.t1, target.t2, paired, batch_size, seed, patches)


# ------------------------------------------------------------------------------------------------
# From subjects to images
# ------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Lists what a set of images is made of: the files of some subjects, unless it is phantoms."""

    name: str
    subjects: Sequence[str]
    kinds: Sequence[str]
    sources: Sequence[Source]
    limit: int  # slices of a subject; 0: all


def _image_set(options: DataOptions, group: Group) -> ImageSet:
    """Load one group from the cache, or prepare it."""
    name, subjects, kinds, sources, limit = group
    paths = [path for source in sources for path in source.paths]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    path = cache.path_of(options, name, [subjects, kinds, limit, stats])
    known = cache.load(path)
    if known is None:
        if options.data is None:
            samples = phantom_samples(options, subjects)
        elif options.dimensions == 2:
            samples = brats_slices(options, sources, limit)
        else:
            samples = brats_volumes(options, sources)
        cache.save(vars(_prepare(options, name, kinds, samples)), path)
        known = cache.load(path)  # the pages of mapped files can be dropped from memory
    if known is None:
        raise DataError(f"{path} cannot be read back, choose another cache")
    return ImageSet(**known)


def _volume_set(options: DataOptions, group: Group) -> ImageSet:
    """Load one group of volumes, each from a file of its own, from which crops can be read."""
    title = f"preparing {group.name}"
    bar = tqdm(group.subjects, desc=title, unit="volume", leave=False, disable=None)
    sets = [
        _image_set(
            options,
            group._replace(name=name, subjects=[name], sources=group.sources[k : k + 1]),
        )
        for k, name in enumerate(bar)
    ]

    def volumes_of(kind: str) -> list[Tensor]:
        return [getattr(image_set, kind)[0] for image_set in sets]

    return ImageSet(
        names=[image_set.names[0] for image_set in sets],
        **{kind: volumes_of(kind) if kind in group.kinds else [] for kind in KINDS},
        brain=volumes_of("brain"),
        labels=None if sets[0].labels is None else volumes_of("labels"),
        spacing=sets[0].spacing,
    )


def _prepare(
    options: DataOptions, name: str, kinds: Sequence[str], samples: Iterable[Sample]
) -> ImageSet:
    """Normalize the samples on the training grid, and collect them in a set."""
    several = options.dimensions == 2 and len(parse_slices(options.slices)) > 1
    images: dict[str, list[Tensor]] = {kind: [] for kind in (*KINDS, "brain", "labels")}
    names, empty = [], []
    for sample in tqdm(samples, desc=f"preparing {name}", unit="image", leave=False, disable=None):
        grid, windows = sample.grid, sample.window
        if not all(
            raw.any() and low < high for raw, (low, high) in zip(sample.raw, windows, strict=True)
        ):
            if not several:
                raise DataError(f"{sample.origin} has no contrast: it is empty or constant")
            empty.append(sample.origin)
            continue
        names.append(sample.name)
        for kind, raw, window in zip(kinds, sample.raw, windows, strict=True):
            images[kind].append(normalize(raw, window, grid, options.anti_aliasing))
        brain = np.any([raw > 0 for raw in sample.raw], axis=0)
        images["brain"].append(mask_on_grid(brain, grid))
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
    stacks |= {kind: torch.empty(0) for kind in KINDS if kind not in kinds}
    return ImageSet(names=names, spacing=sample.spacing, **stacks)
