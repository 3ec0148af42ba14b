# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A T1 and a T2 of one brain become a registration with a known result, and results become files.

All axes point to the patient's left, back and top (LPS), whatever the axes of the files.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import CropForeground
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor

from ..common.files import write_atomically
from ..common.nifti import AXES, DataError, Volume, as_stored, turn
from ..common.phantom import brain_phantom
from .warp import KnownWarp, known_warp, warp

MARGIN = 2.0  # mm around the brain, more than the warp moves it
BRIGHT = 99.0  # percentile of the brain that becomes 1; the background stays 0


class Problem(NamedTuple):
    """A registration problem: the T2 is fixed, and the moving image is the T1 under a known warp.

    Images are ``(1, 1, X, Y, Z)`` in [0, 1] and show the brain and a margin. Their voxels are
    larger than the file's by ``factors``.
    """

    fixed: Tensor
    moving: Tensor
    aligned: Tensor  # the T1 before the warp
    brain: Tensor  # bool, of the fixed image
    known: KnownWarp
    spacing: tuple[float, ...]
    factors: tuple[int, ...]
    start: tuple[int, ...]  # the first voxel of the file that is shown
    moving_file: Tensor  # the moving image on the grid of the file and in its intensities


def phantom_pair(size: Sequence[int], index: int) -> tuple[Volume, Volume]:
    """Make the T1 and the T2 of a subject of the phantom as volumes, as if read from files."""
    phantom = brain_phantom(size, index=index, tumour=True)
    affine = np.diag([*phantom.spacing, 1.0])
    t1, t2 = (
        Volume(Path(name), turn(voxels, affine), nibabel.Nifti1Image(voxels, affine))
        for name, voxels in (("phantom-t1.nii.gz", phantom.t1), ("phantom-t2.nii.gz", phantom.t2))
    )
    return t1, t2


def make_problem(
    t1: Volume,
    t2: Volume,
    voxel: float | Sequence[float],
    levels: int,
    largest: float,
    seed: int,
) -> Problem:
    """Make the registration of a T1 to a T2.

    Args:
        t1, t2: volumes on one grid, without their skull: the background is 0.
        voxel: the size of a voxel in mm, one or one per axis; a whole number of the file's voxels
            comes near to it.
        levels: the levels of the pyramid, each of which halves the grid.
        largest, seed: the largest displacement of the known warp in mm, and its seed.
    """
    _, steps = t2.grid
    for volume in (t1, t2):
        if not (volume.voxels > 0).any():
            raise DataError(f"{volume.path} has no voxel above 0")
    sizes = np.broadcast_to(voxel, 3)
    factors = tuple(max(1, round(size / step)) for size, step in zip(sizes, steps, strict=True))
    crop = CropForeground(
        margin=[math.ceil((largest + MARGIN) / step) for step in steps],
        k_divisible=[factor * 2**levels for factor in factors],  # the coarsest grid has knots too
        allow_smaller=False,
    )
    low, high = crop.compute_bounding_box(torch.from_numpy(t2.voxels > 0)[None])
    start, size = tuple(map(int, low)), tuple(map(int, high - low))

    images = [_window(torch.from_numpy(v.voxels.copy())[None, None], start, size) for v in (t1, t2)]
    spacing = tuple(factor * step for factor, step in zip(factors, steps, strict=True))
    coarse = tuple(n // factor for n, factor in zip(size, factors, strict=True))
    known = known_warp(coarse, spacing, largest, seed)
    moving = warp(images[0], _finer(known.inverse, factors), steps)

    aligned, fixed, shrunk = (
        F.avg_pool3d(_scale(image, v), factors)
        for image, v in ((images[0], t1), (images[1], t2), (moving, t1))
    )
    brain = F.avg_pool3d((images[1] > 0).float(), factors) > 0.5
    back = tuple(-n for n in start)
    whole = _window(moving, back, t1.voxels.shape)
    return Problem(fixed, shrunk, aligned, brain, known, spacing, factors, start, whole)


def _scale(image: Tensor, volume: Volume) -> Tensor:
    bright = float(np.percentile(volume.voxels[volume.voxels > 0], BRIGHT))
    return (image / bright).clamp(0, 1)


def _window(image: Tensor, start: Sequence[int], size: Sequence[int]) -> Tensor:
    """Take a box of an image ``(B, C, X, Y, Z)``; outside the image the border is repeated."""
    for axis, (first, length) in enumerate(zip(start, size, strict=True), start=2):
        index = torch.arange(first, first + length).clamp(0, image.shape[axis] - 1)
        image = image.index_select(axis, index)
    return image


def _finer(field: Tensor, factors: Sequence[float]) -> Tensor:
    return F.interpolate(field, scale_factor=tuple(map(float, factors)), mode="trilinear")


# ------------------------------------------------------------------------------------------------
# Files
# ------------------------------------------------------------------------------------------------


def save_moving(path: Path, problem: Problem, t1: Volume) -> None:
    """Write the T1 under the known warp, with the grid and the header of the T1."""
    _save(path, as_stored(problem.moving_file[0, 0].numpy(), t1))


def save_result(
    folder: Path, name: str, displacement: Tensor, problem: Problem, t2: Volume
) -> None:
    """Write displacement and warped image with the grid and the header of the fixed image.

    ITK and ANTs can read the displacement. It is a vector image of mm to the patient's left, back
    and top, from a point of the fixed image to its counterpart in the moving image.
    """
    shape, steps = t2.grid
    back = tuple(-n for n in problem.start)
    whole = _window(_finer(displacement, problem.factors), back, shape)
    warped = warp(problem.moving_file, whole, steps)
    _save(folder / f"{name}-warped.nii.gz", as_stored(warped[0, 0].numpy(), t2))

    vectors = np.einsum("ij,jxyz->xyzi", _directions(t2), whole[0].numpy())
    field = as_stored(vectors[:, :, :, None].astype(np.float32), t2)
    field.header.set_intent("vector")
    _save(folder / f"{name}-displacement.nii.gz", field)


def _directions(volume: Volume) -> NDArray[np.float64]:
    """Return the unit vectors of our axes as columns; only an oblique file differs from LPS."""
    stored = orientations.io_orientation(volume.image.affine)
    ours = orientations.axcodes2ornt(AXES)
    change = orientations.ornt_transform(stored, ours)
    affine = volume.image.affine @ orientations.inv_ornt_aff(change, volume.image.shape)
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return np.diag([-1.0, -1, 1]) @ unit  # affines of NIfTI point right and front


def _save(path: Path, image: nibabel.Nifti1Image) -> None:
    write_atomically(path, lambda file: file.write(gzip.compress(image.to_bytes(), 5)))
