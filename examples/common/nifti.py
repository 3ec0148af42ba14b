# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pairs of NIfTI volumes.

In memory the axes of a volume point to the patient's left, back and top (LPS). BraTS stores its
volumes in this way, so that its arrays are used as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from monai.data import NibabelReader
from nibabel import orientations
from numpy.typing import NDArray

Array = NDArray[np.float32]

AXES = "LPS"


class DataError(ValueError):
    """An error in the data, described by one sentence that names the file or the option."""


class Volume(NamedTuple):
    """A volume as the file stores it (``image``) and turned to LPS (``voxels``, ``(X, Y, Z)``)."""

    path: Path
    voxels: Array
    image: nibabel.Nifti1Image

    @property
    def steps(self) -> tuple[float, ...]:
        """The mm per voxel along left, back and top."""
        steps = nibabel.affines.voxel_sizes(self.image.affine)
        turned = orientations.io_orientation(self.image.affine)[:, 0].argsort()
        return tuple(float(steps[axis]) for axis in turned)

    @property
    def grid(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """The numbers of voxels, and the mm per voxel without the headers' rounding errors."""
        return self.voxels.shape, tuple(round(step, 4) for step in self.steps)


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file; raise DataError if it is missing, damaged, not 3D or not finite."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        image = NibabelReader().read(path)
        stored = image.get_fdata(dtype=np.float32, caching="unchanged")
        voxels = stored if stored.ndim != 3 else turn(stored, image.affine)
    except Exception as error:  # damaged headers and streams show in errors of many types
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as NIfTI: {reason}") from error
    if voxels.ndim != 3:
        raise DataError(f"{path} must be a 3D volume, got shape {voxels.shape}")
    if not np.isfinite(voxels).all():
        raise DataError(f"{path} contains NaN or infinite voxels")
    return Volume(path, voxels, image)


def read_pair(t1_path: Path, t2_path: Path) -> tuple[Volume, Volume]:
    """Read both contrasts of a subject; raise DataError unless they share grid and affine."""
    t1, t2 = read_volume(t1_path), read_volume(t2_path)
    if t1.voxels.shape != t2.voxels.shape:
        raise DataError(f"{t2_path} has shape {t2.voxels.shape}, its T1 has {t1.voxels.shape}")
    if not np.allclose(t1.image.affine, t2.image.affine, atol=1e-3):
        raise DataError(f"{t2_path} lies differently in space than its T1: their affines differ")
    return t1, t2


def turn(voxels: Array, affine: NDArray[np.float64], back: bool = False) -> Array:
    """Turn voxels from the axes of the file to LPS, or back."""
    stored = orientations.io_orientation(affine)
    ours = orientations.axcodes2ornt(AXES)
    way = (ours, stored) if back else (stored, ours)
    return orientations.apply_orientation(voxels, orientations.ornt_transform(*way))


def as_stored(voxels: Array, like: Volume) -> nibabel.Nifti1Image:
    """Make a float32 image of ``(X, Y, Z, ...)`` with the grid, affine and header of a file."""
    affine = like.image.affine
    result = nibabel.Nifti1Image(turn(voxels, affine, back=True), affine, like.image.header)
    result.set_data_dtype(np.float32)
    return result
