# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""NIfTI volumes: reading, intensity windows, the training grid, and a generator on a whole volume.

Inside this package the axes of a volume point to the patient's left, back and top (LPS). That is
how BraTS stores them, so that its arrays are used as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import NibabelReader
from monai.inferers import SlidingWindowInferer
from monai.transforms import CropForeground, Resize, ScaleIntensityRange
from monai.utils import convert_to_tensor
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from .images import DataOptions

Array = NDArray[np.float32]
Window = tuple[float, float]
# Slices are a stack (N, 1, H, W), volumes a list of (1, X, Y, Z): no two brains have one shape.
Images = Tensor | list[Tensor]

AXES = "LPS"
BACKGROUND = -1.0
WINDOWS = 2  # of a volume, in the generator at a time
OVERLAP = 0.5  # of neighbouring windows along an axis


class DataError(ValueError):
    """What is wrong with the data, in one sentence that names the file or the option."""


class Volume(NamedTuple):
    """A volume as the file stores it (``image``) and turned to LPS (``voxels``, ``(X, Y, Z)``)."""

    path: Path
    voxels: Array
    image: nibabel.Nifti1Image

    @property
    def grid(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Voxels and mm per voxel along left, back and top."""
        steps = nibabel.affines.voxel_sizes(self.image.affine)
        turned = orientations.io_orientation(self.image.affine)[:, 0].argsort()
        return self.voxels.shape, tuple(round(float(steps[axis]), 4) for axis in turned)


# ------------------------------------------------------------------------------------------------
# Reading
# ------------------------------------------------------------------------------------------------


def read_volume(path: Path) -> Volume:
    """A NIfTI file; DataError if it is missing, damaged, not 3D or not finite."""
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
    """Both contrasts of a subject; DataError unless they share grid and place in space."""
    t1, t2 = read_volume(t1_path), read_volume(t2_path)
    if t1.voxels.shape != t2.voxels.shape:
        raise DataError(f"{t2_path} has shape {t2.voxels.shape}, its T1 has {t1.voxels.shape}")
    if not np.allclose(t1.image.affine, t2.image.affine, atol=1e-3):
        raise DataError(f"{t2_path} lies differently in space than its T1: their affines differ")
    return t1, t2


def check_axial(volume: Volume) -> None:
    """DataError unless the axial slices are square, of square pixels: resizing would distort."""
    (width, height, _), (x, y, _) = volume.grid
    if width != height or abs(x - y) > 1e-3:
        raise DataError(
            f"{volume.path} must have square axial slices of square pixels, "
            f"got {width} x {height} of {x:g} x {y:g} mm"
        )


def turn(voxels: Array, affine: NDArray[np.float64], back: bool = False) -> Array:
    """From the axes of the file to LPS, or back."""
    stored = orientations.io_orientation(affine)
    ours = orientations.axcodes2ornt(AXES)
    way = (ours, stored) if back else (stored, ours)
    return orientations.apply_orientation(voxels, orientations.ornt_transform(*way))


def as_stored(voxels: Array, like: Volume) -> nibabel.Nifti1Image:
    """``(X, Y, Z, ...)`` as float32 on the grid of a file, with its affine and header."""
    affine = like.image.affine
    result = nibabel.Nifti1Image(turn(voxels, affine, back=True), affine, like.image.header)
    result.set_data_dtype(np.float32)
    return result


# ------------------------------------------------------------------------------------------------
# Intensities and grid
# ------------------------------------------------------------------------------------------------


def intensity_window(image: Array, options: DataOptions) -> Window:
    """The raw intensities that become -1 and 1: percentiles of a slice or a volume.

    They are equal where the image has no contrast: it is empty, or nearly so.
    """
    values = image[image > 0] if options.percentile_mask == "foreground" else image
    if not values.size:
        return 0.0, 0.0
    low, high = np.percentile(values, (options.lower, options.upper))
    return float(low), float(high)


class Grid(NamedTuple):
    """The part of a raw image that is used, and how many pixels it then has."""

    box: tuple[slice, ...]
    shape: tuple[int, ...]


def slice_grid(shape: tuple[int, ...], options: DataOptions) -> Grid:
    """The central square of ``crop`` pixels, or everything, enlarged or reduced to ``size``."""
    crop = options.crop
    box = tuple(slice((n - crop) // 2, (n + crop) // 2) if crop else slice(None) for n in shape)
    return Grid(box, (options.size,) * len(shape))


def brain_grid(brain: NDArray[np.bool_], steps: Sequence[float], spacing: float) -> Grid:
    """The box around a brain with voxels of ``steps`` mm, and its voxels of ``spacing`` mm."""
    start, end = CropForeground().compute_bounding_box(brain[None])
    box = tuple(slice(int(low), int(high)) for low, high in zip(start, end, strict=True))
    mm = (step * (part.stop - part.start) for step, part in zip(steps, box, strict=True))
    return Grid(box, tuple(max(round(length / spacing), 1) for length in mm))


def normalize(image: Array, window: Window, grid: Grid, anti_aliasing: bool) -> Tensor:
    """A raw slice ``(H, W)`` or volume in [-1, 1] on the training grid, ``(1, *grid.shape)``.

    All -1 if the window is empty, as that of a constant image is.
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
    """``(C, H, W)`` or ``(C, X, Y, Z)`` to another size, linearly, with ``align_corners=False``.

    Anti-aliasing blurs where an image gets smaller and does nothing where it gets larger. That of
    slices is torch's, a wider filter: MONAI's ``Resize`` takes what is outside for 0. For volumes
    torch has none; around a brain 0 is right.
    """
    if tuple(image.shape[1:]) == size:
        return image
    # Above the background, since the weights of a filter sum to 1 only up to rounding: -1 has to
    # stay -1, because histogram matching depends on ties.
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
    """``(H, W)`` or ``(X, Y, Z)`` to bool ``(1, *grid.shape)``: the nearest voxel."""
    image = torch.from_numpy(mask[grid.box])[None, None].float()
    return functional.interpolate(image, grid.shape, mode="nearest-exact")[0] > 0


# ------------------------------------------------------------------------------------------------
# Inference
# ------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(
    generator: nn.Module,
    source: Images,
    batch: int = 8,
    device: torch.device | str = "cpu",
    patch: int = 0,
) -> Images:
    """The generator on images of any number; float32, on the CPU.

    Args:
        generator: maps images to images.
        source: slices, which it sees ``batch`` at a time, or volumes, of which it sees windows.
        batch: slices at a time.
        device: of the generator.
        patch: voxels along each side of a window; what volumes have in common.
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
    """The T2 of a whole T1 volume on the grid of its file, slice by slice or by sliding windows.

    Intensities are the generator's: background near -1, and the scale of every slice its own unless
    it was trained on volumes or ``percentile_scope`` is ``"volume"``. What has no contrast or is
    cut off, by ``crop`` or around the brain, becomes -1. Affine and header are the input's; only
    data type and display range change.
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
