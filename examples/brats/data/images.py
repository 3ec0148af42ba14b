# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Images of four groups of subjects, from BraTS or computed, and batches of them for training.

The folder of the data holds one folder per subject, ``<ID>/<ID>-t1n.nii.gz`` and
``<ID>/<ID>-t2w.nii.gz`` as in BraTS 2023, or the names of older years. As in the paper, the
training images are T1 of one group and T2 of another. Without a folder the brain phantom stands in.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from tqdm import tqdm

from ...common import anatomy, phantom
from ...common.files import write_atomically
from . import volumes
from .sampling import Patches, TrainingPairs
from .split import find_files, parse_sizes, parse_slices, split_subjects
from .volumes import Array, DataError, Grid, Images, Window

__all__ = ["Data", "DataError", "DataOptions", "ImageSet", "load_data", "training_pairs"]


TONE = 3.0  # the exponent of the phantom's toned T1


@dataclass(frozen=True)
class DataOptions:
    """What the images are; the defaults are the paper's."""

    data: str | None = None  # folder of subjects; None: the phantom
    size: int = 256  # pixels along each side of slices and of the phantom
    crop: int = 0  # pixels along each side of the centre of a slice that is used; 0: all of it
    slices: str = "80"  # axial, counted from 0: a number, start:stop or start:stop:step
    split: str = "paper"  # or n1/n2/n3/n4 of the sorted subjects, or a JSON file of their names
    lower: float = 1.0  # percentile that becomes -1
    upper: float = 99.0  # percentile that becomes 1
    percentile_scope: Literal["slice", "volume"] = "slice"  # of slices; else it is the volume
    percentile_mask: Literal["all", "foreground"] = "all"
    anti_aliasing: bool = True  # blur before images get smaller; nothing at 256
    t1_suffix: str = "-t1n.nii.gz"  # where missing, the names of older years are tried
    t2_suffix: str = "-t2w.nii.gz"
    dimensions: int = 2  # 3: volumes, cropped to the brain, in place of slices
    spacing: float = 1.0  # mm per voxel of volumes, to which those of data are resampled
    patch: int = 0  # voxels along each side of the part of a volume in training; 0: size
    seed: int = 0  # of the phantom's population
    phantom_sizes: str = "400/400/10/100"  # subjects for training T1 and T2, validation, test
    phantom_spacing: float | None = None  # mm; None: the head just fits
    # What takes the place of its T2; "toned": its T1 under a monotone curve.
    phantom_target: Literal["t2", "toned"] = "t2"
    phantom_blur: float = 0.0  # standard deviation in pixels, before the normalization
    cache: str | None = None  # folder for the finished images; None: one of the user

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"size must be at least 8, got {self.size}")
        if self.crop < 0:
            raise ValueError(f"crop must not be negative, got {self.crop}")
        if not 0 <= self.lower < self.upper <= 100:
            raise ValueError(
                f"percentiles must be 0 <= lower < upper <= 100, got {self.lower}, {self.upper}"
            )
        if self.dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, got {self.dimensions}")
        if self.crop and self.dimensions == 3:
            raise ValueError("crop is for slices: volumes are cropped to the brain")
        if not 0 < self.spacing < float("inf"):
            raise ValueError(f"spacing must be positive, got {self.spacing}")
        if self.patch and self.patch < 8:
            raise ValueError(f"patch must be 0 or at least 8, got {self.patch}")
        if self.phantom_spacing is not None and not self.phantom_spacing > 0:
            raise ValueError(f"phantom_spacing must be positive, got {self.phantom_spacing}")
        if not self.phantom_blur >= 0:
            raise ValueError(f"phantom_blur must not be negative, got {self.phantom_blur}")
        parse_slices(self.slices)
        parse_sizes("phantom_sizes", self.phantom_sizes)
        if self.data is None and self.split != "paper":
            raise ValueError("split divides the subjects of data: the phantom has phantom_sizes")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the images that the networks see in training."""
        side = self.patch or self.size if self.dimensions == 3 else self.size
        return (side,) * self.dimensions


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
    """Unpaired training takes T1 of ``source`` and T2 of ``target``; paired, both of ``source``."""

    source: ImageSet
    target: ImageSet
    validation: ImageSet
    test: ImageSet


def load_data(options: DataOptions) -> Data:
    """All images, from the cache where they are there; DataError with one sentence if unusable.

    An image without contrast (an empty slice, or one that the percentiles leave constant) is
    refused; from a range of slices it is left out, with a warning while images are prepared.
    """
    groups = split_subjects(options)
    # All of them before the first is read: a missing file is then known at once.
    files = {name: find_files(options, subjects) for name, subjects in groups.items()}
    make = _image_set if options.dimensions == 2 else _volume_set
    sets = [make(options, name, groups[name], files[name]) for name in groups]
    if len({images.spacing for images in sets}) > 1:
        raise DataError(f"the pixel sizes of the groups of {options.data} differ")
    return Data(*sets)


def training_pairs(
    data: Data, paired: bool, batch_size: int, seed: int, patch: int = 0
) -> TrainingPairs:
    """T1 and T2 of the first group if paired, else T1 of the first and T2 of the second.

    Of volumes, ``patch`` voxels along each side.
    """
    source, target = data.source, data.source if paired else data.target
    patches = Patches(patch, source.brain, target.brain) if isinstance(source.t1, list) else None
    return TrainingPairs(source.t1, target.t2, paired, batch_size, seed, patches)


# ------------------------------------------------------------------------------------------------
# From subjects to images
# ------------------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """One image before normalization: raw ``(H, W)`` or ``(X, Y, Z)``, of both contrasts."""

    name: str
    raw: tuple[Array, Array]
    window: tuple[Window, Window]
    labels: NDArray[np.uint8] | None
    grid: Grid
    spacing: float  # mm per pixel of the training grid
    origin: str  # for messages


def _image_set(
    options: DataOptions, name: str, subjects: Sequence[str], files: Sequence[Path]
) -> ImageSet:
    """One group, from the cache or prepared for it."""
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    path = _cache_path(options, name, [subjects, stats])
    images = _load(path)
    if images is None:
        if options.data is None:
            samples = _phantom_samples(options, subjects)
        elif options.dimensions == 2:
            samples = _brats_slices(options, subjects, files)
        else:
            samples = _brats_volumes(options, subjects, files)
        _save(_prepare(options, name, samples), path)
        images = _load(path)  # as files that are mapped, whose pages may go
    if images is None:
        raise DataError(f"{path} cannot be read back, choose another cache")
    return images


def _volume_set(
    options: DataOptions, name: str, subjects: Sequence[str], files: Sequence[Path]
) -> ImageSet:
    """One group of volumes, each in a file of its own, of which a crop is read without the rest."""
    bar = tqdm(subjects, desc=f"preparing {name}", unit="volume", leave=False, disable=None)
    each = [
        _image_set(options, subject, [subject], files[2 * k : 2 * k + 2])
        for k, subject in enumerate(bar)
    ]

    def volumes_of(kind: str) -> list[Tensor]:
        return [getattr(one, kind)[0] for one in each]

    return ImageSet(
        names=[one.names[0] for one in each],
        **{kind: volumes_of(kind) for kind in ("t1", "t2", "brain")},
        labels=None if each[0].labels is None else volumes_of("labels"),
        spacing=each[0].spacing,
    )


def _brats_slices(
    options: DataOptions, subjects: Sequence[str], files: Sequence[Path]
) -> Iterator[Sample]:
    indices = parse_slices(options.slices)
    first = None
    for subject, t1_path, t2_path in zip(subjects, files[::2], files[1::2], strict=True):
        pair = volumes.read_pair(t1_path, t2_path)
        volumes.check_axial(pair[0])
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
        grid = volumes.slice_grid((width, width), options)
        whole = None
        if options.percentile_scope == "volume":
            whole = tuple(volumes.intensity_window(volume.voxels, options) for volume in pair)
        for k in indices:
            raw = tuple(volume.voxels[:, :, k] for volume in pair)
            window = whole or tuple(volumes.intensity_window(image, options) for image in raw)
            name = f"{subject}_s{k:03d}" if len(indices) > 1 else subject
            spacing = round(step * (options.crop or width) / options.size, 6)
            yield Sample(
                name, raw, window, None, grid, spacing, f"slice {k} of {t1_path} or its T2"
            )


def _brats_volumes(
    options: DataOptions, subjects: Sequence[str], files: Sequence[Path]
) -> Iterator[Sample]:
    for subject, t1_path, t2_path in zip(subjects, files[::2], files[1::2], strict=True):
        t1, t2 = volumes.read_pair(t1_path, t2_path)
        raw = t1.voxels, t2.voxels
        window = tuple(volumes.intensity_window(image, options) for image in raw)
        brain = (t1.voxels > 0) | (t2.voxels > 0)
        grid = volumes.brain_grid(brain, t1.grid[1], options.spacing)
        yield Sample(
            subject, raw, window, None, grid, options.spacing, f"the volume {t1_path} or its T2"
        )


def _phantom_samples(options: DataOptions, subjects: Sequence[str]) -> Iterator[Sample]:
    if options.crop:
        raise DataError("crop is for data: of the phantom, phantom_spacing shows more or less")
    spacing = options.phantom_spacing and (options.phantom_spacing,) * options.dimensions
    for subject in subjects:
        brain = phantom.brain_phantom(
            (options.size,) * options.dimensions,
            seed=options.seed,
            index=int(subject),
            spacing=spacing,
        )
        # Right and front become left and back.
        t1, t2, labels = (np.ascontiguousarray(image[::-1, ::-1]) for image in brain[:3])
        if options.phantom_target == "toned":
            t2 = (t1 / t1.max()) ** TONE
        if options.phantom_blur:
            t1, t2 = (gaussian_filter(image, options.phantom_blur) for image in (t1, t2))
            t1, t2 = t1 * (labels > 0), t2 * (labels > 0)
        window = tuple(volumes.intensity_window(image, options) for image in (t1, t2))
        if options.dimensions == 2:
            grid = volumes.slice_grid(t1.shape, options)
        else:
            grid = volumes.brain_grid(labels > 0, brain.spacing, brain.spacing[0])
        name = f"phantom-{int(subject):04d}"
        yield Sample(name, (t1, t2), window, labels, grid, brain.spacing[0], name)


def _prepare(options: DataOptions, name: str, samples: Iterable[Sample]) -> ImageSet:
    """The samples normalized, on the training grid and in one piece."""
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
            images[kind].append(volumes.normalize(raw, window, grid, options.anti_aliasing))
        images["brain"].append(volumes.mask_on_grid((t1 > 0) | (t2 > 0), grid))
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


# ------------------------------------------------------------------------------------------------
# Cache
# ------------------------------------------------------------------------------------------------


def _cache_path(options: DataOptions, name: str, facts: object) -> Path:
    """A name that is new whenever options, ``facts`` or the code that makes the images are."""
    key = asdict(options)
    # They show in the facts, if at all.
    for other in ("cache", "split", "phantom_sizes", "patch"):
        del key[other]
    digest = hashlib.sha256(json.dumps([key, facts], sort_keys=True).encode())
    for source in (phantom.__file__, anatomy.__file__, volumes.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return _cache_folder(options.cache) / f"{name}-{digest.hexdigest()[:20]}.pt"


def _load(path: Path) -> ImageSet | None:
    try:
        # Mapped: processes on one machine share the pages, and what is not used is not read.
        return ImageSet(**torch.load(path, mmap=True, weights_only=True))
    except Exception:  # not there, or damaged, which shows in errors of many types
        return None


def _save(images: ImageSet, path: Path) -> None:
    try:
        write_atomically(path, functools.partial(torch.save, vars(images)))
    except OSError as error:
        raise DataError(f"{path} cannot be written, choose another cache: {error}") from error


def _cache_folder(cache: str | None) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    choices = [Path(cache)] if cache else [Path(home), Path(tempfile.gettempdir())]
    for base in choices:
        folder = base if cache else base / "nec_ext" / "brats"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise DataError(f"the cache {choices[-1]} is not a folder that can be written")
