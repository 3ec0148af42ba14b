# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The options of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .split import parse_sizes, parse_slices


@dataclass(frozen=True)
class DataOptions:
    """The options of the images; the defaults are the paper's."""

    data: str | None = None  # folder of the files of all subjects; None: the phantom
    size: int = 256  # pixels along each side of slices and of the phantom
    crop: int = 0  # pixels along each side of the centre of a slice that is used; 0: all of it
    slices: str = "80"  # axial, of volumes, from 0: a number, start:stop or start:stop:step
    training_slices: int = 0  # of each training subject, evenly spread; 0: all
    split: str = "paper"  # or n1/n2/n3/n4 of the sorted subjects, or a JSON file of their names
    subjects: int = 0  # of each training group, always the same ones; 0: all
    paired_t1: bool = False  # the T1 of the split's train_paired belong to train_t1 too
    lower: float = 1.0  # percentile that becomes -1
    upper: float = 99.0  # percentile that becomes 1
    percentile_scope: Literal["slice", "volume"] = "slice"  # for slices only
    percentile_mask: Literal["all", "foreground"] = "all"
    anti_aliasing: bool = True  # blur before images get smaller; nothing at 256
    t1_suffix: str = "-t1n.nii.gz"  # where missing, the names of older years are tried
    t2_suffix: str = "-t2w.nii.gz"
    dimensions: int = 2  # 3: volumes, cropped to the brain, in place of slices
    spacing: float = 1.0  # mm per voxel of volumes, to which those of data are resampled
    patch: int = 0  # voxels along each side of the part of a volume in training; 0: size
    seed: int = 0  # of the phantom's population
    phantom_sizes: str = "400/400/10/100"  # subjects for training T1 and T2, validation, test
    # The phantom's target is its T2, or, if "toned", its T1 under a monotone curve.
    phantom_target: Literal["t2", "toned"] = "t2"
    cache: str | None = None  # folder for the finished images; None: one of the user

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"size must be at least 8, got {self.size}")
        for name in ("crop", "training_slices", "subjects"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
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
        parse_slices(self.slices)
        parse_sizes("phantom_sizes", self.phantom_sizes)
        if self.data is None and self.split != "paper":
            raise ValueError("split divides the subjects of data: the phantom has phantom_sizes")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the images that the networks see in training."""
        side = self.patch or self.size if self.dimensions == 3 else self.size
        return (side,) * self.dimensions
