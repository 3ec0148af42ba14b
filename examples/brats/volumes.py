# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""NIfTI volumes: reading, intensity windows, the training grid, and a generator on a whole volume.

Inside this package the axes of a volume point to the patient's left, back and top (LPS). That is
how BraTS stores them, so that its arrays are used as they are.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import NibabelReader
from monai.transforms import ScaleIntensityRange
from monai.utils import convert_to_tensor
from nibabel import orientations
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from .data import DataOptions

Array = NDArray[np.float32]
Window = tuple[float, float]

AXES = "LPS"
BACKGROUND = -1.0


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


def normalize(image: Array, window: Window, options: DataOptions) -> Tensor:
    """A raw slice ``(H, W)`` or volume in [-1, 1] on the training grid, ``(1, size, size)``.

    All -1 if the window is empty, as that of a constant image is.
    """
    low, high = window
    if low < high:
        scaled = ScaleIntensityRange(low, high, -1.0, 1.0, clip=True)(image[None])
    else:
        scaled = np.full_like(image[None], BACKGROUND)
    scaled = scaled[0][centre(image.shape, options.crop)][None]
    scaled = convert_to_tensor(scaled, dtype=torch.float32, track_meta=False)
    return resize(scaled, (options.size,) * image.ndim, options.anti_aliasing)


def resize(image: Tensor, size: tuple[int, ...], anti_aliasing: bool = False) -> Tensor:
    """``(C, H, W)`` to another size, linearly, with ``align_corners=False``; volumes as they are.

    Anti-aliasing widens the filter where an image gets smaller and does nothing where it gets
    larger. It is torch's: that of MONAI's ``Resize`` takes what is outside the image for 0.
    """
    if tuple(image.shape[1:]) == size:
        return image
    # Above the background, since the weights of a filter sum to 1 only up to rounding: -1 has to
    # stay -1, because histogram matching depends on ties.
    above = (image - BACKGROUND)[None]
    resized = functional.interpolate(
        above, size, mode="bilinear", align_corners=False, antialias=anti_aliasing
    )
    return resized[0] + BACKGROUND


def mask_on_grid(mask: NDArray[np.bool_], options: DataOptions) -> Tensor:
    """``(H, W)`` or ``(X, Y, Z)`` to bool ``(1, size, ...)``: the nearest voxel."""
    image = torch.from_numpy(mask[centre(mask.shape, options.crop)])[None, None].float()
    size = (options.size,) * mask.ndim
    return functional.interpolate(image, size, mode="nearest-exact")[0] > 0


def centre(shape: tuple[int, ...], crop: int) -> tuple[slice, ...]:
    """Where the central square or cube of ``crop`` voxels lies; 0: everything."""
    return tuple(slice((n - crop) // 2, (n + crop) // 2) if crop else slice(None) for n in shape)


# ------------------------------------------------------------------------------------------------
# Inference
# ------------------------------------------------------------------------------------------------


@torch.no_grad()
def predict(
    generator: nn.Module, source: Tensor, batch: int = 8, device: torch.device | str = "cpu"
) -> Tensor:
    """The generator on images ``(N, 1, ...)``, a batch at a time; float32, on the CPU."""
    training = generator.training
    generator.eval()
    fake = [generator(part.to(device)).float().cpu() for part in source.split(batch)]
    generator.train(training)
    return torch.cat(fake)


def synthesize(
    path: Path,
    out: Path,
    generator: nn.Module,
    options: DataOptions,
    device: torch.device | str = "cpu",
) -> None:
    """The T2 of a whole T1 volume, slice by slice, on the grid of its file.

    Intensities are the generator's: background near -1, and the scale of every slice its own unless
    ``percentile_scope`` is ``"volume"``. Slices without contrast become -1. Affine and header are
    the input's; only data type and display range change. What ``crop`` cuts off becomes -1.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise DataError(f"{out} must end in .nii or .nii.gz")
    if options.dimensions != 2:
        raise DataError("slice by slice needs a generator that was trained with dimensions=2")
    volume = read_volume(path)
    check_axial(volume)
    slices = np.moveaxis(volume.voxels, 2, 0)
    if options.percentile_scope == "volume":
        windows = itertools.repeat(intensity_window(volume.voxels, options), len(slices))
    else:
        windows = (intensity_window(image, options) for image in slices)

    synthetic = np.full_like(volume.voxels, BACKGROUND)
    for k, (image, window) in enumerate(zip(slices, windows, strict=True)):
        if window[0] < window[1] and image.any():
            fake = predict(generator, normalize(image, window, options)[None], device=device)
            part = synthetic[:, :, k][centre(image.shape, options.crop)]
            part[...] = resize(fake[0], part.shape)[0].numpy()

    result = as_stored(synthetic, volume)
    result.header["cal_min"], result.header["cal_max"] = -1, 1
    out.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(result, out)
