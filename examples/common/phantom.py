# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A skull-stripped brain in two MR contrasts, computed from a seed.

T1 and T2 show the same anatomy with other intensities: cerebrospinal fluid (CSF) and white matter
(WM) swap their order, oedema looks like grey matter (GM) in T1 and not in T2, and the background
is dark in both. So no intensity curve turns one into the other exactly, while their edges agree. A
loss based on edges is made for such pairs.

Axes point right, anterior and superior, as in a NIfTI file of orientation RAS. A 2D phantom is an
axial slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage.transform import downscale_local_mean

from .anatomy import TISSUES, SmoothNoise, tissue_fractions

__all__ = ["FIELD_OF_VIEW", "TISSUES", "Phantom", "brain_phantom"]

Volume = NDArray[np.float32]

FIELD_OF_VIEW = (160.0, 192.0, 160.0)  # mm; the largest head fits
SLICE_HEIGHT = 4.0  # mm; a 2D phantom cuts the ventricles, the basal ganglia and the insula
FINE_SPACING = 1.0  # mm; coarser voxels average finer ones, up to 3 along an axis
SCANNER_UNITS = {"t1": 700.0, "t2": 500.0}

# The mean signal of each tissue, in the order of TISSUES, and its share of the smooth texture.
SIGNAL = {
    "t1": (0.0, 0.22, 0.56, 0.80, 0.64, 0.50, 0.34, 0.46),
    "t2": (0.0, 0.97, 0.56, 0.38, 0.46, 0.80, 0.88, 0.66),
}
TEXTURE = {
    "t1": (0.0, 0.01, 0.02, 0.02, 0.03, 0.03, 0.05, 0.03),
    "t2": (0.0, 0.02, 0.02, -0.02, -0.03, 0.04, -0.05, 0.03),
}


class Phantom(NamedTuple):
    """A subject of the phantom.

    Attributes:
        t1, t2: ``size``, in scanner units; exactly 0 outside the brain.
        labels: ``size``, the tissue that fills most of a voxel: its position in ``TISSUES``.
        spacing: mm, one number per axis.
    """

    t1: Volume
    t2: Volume
    labels: NDArray[np.uint8]
    spacing: tuple[float, ...]


def brain_phantom(
    size: Sequence[int] = (160, 192, 160),
    *,
    seed: int = 0,
    index: int = 0,
    tumour: bool | None = None,
) -> Phantom:
    """Make subject ``index`` of the population ``seed``: the same anatomy whatever the size.

    The voxels are isotropic, and of the size at which the largest head just fits.

    Args:
        size: voxels along right, anterior and superior; two numbers give an axial slice.
        seed, index: non-negative; every pair is another subject.
        tumour: whether there is one; None: in 7 subjects of 10.
    """
    ndim = len(size)
    if ndim not in (2, 3) or min(size) < 8:
        raise ValueError(f"size must be 2 or 3 numbers of voxels, each at least 8, got {size}")
    step = max(view / n for view, n in zip(FIELD_OF_VIEW, size, strict=False))
    factor = min(3, math.ceil(step / FINE_SPACING - 1e-6))
    spacing, factors = (step,) * ndim, (factor,) * ndim

    # Subject and scans have generators of their own, as the size of an image decides how many
    # numbers its scan draws.
    subject, *scans = np.random.default_rng([seed, index]).spawn(1 + len(SIGNAL))
    position = _grid(tuple(size), spacing, factors)
    turned = _turn(subject, position)
    fine = tissue_fractions(subject, turned, step / factor, tumour)
    fractions = np.stack([_average(part, factors, ndim) for part in fine])
    place = np.stack([_average(part, factors, ndim) for part in position])

    labels = fractions.argmax(0).astype(np.uint8)
    texture = SmoothNoise(subject, wavelength=14.0)(place)
    images = [
        _acquire(scan, name, fractions, place, texture) * (labels > 0)
        for scan, name in zip(scans, SIGNAL, strict=True)
    ]
    t1, t2, labels = (array.reshape(tuple(size)) for array in (*images, labels))
    return Phantom(t1, t2, labels, spacing)


def _grid(size: tuple[int, ...], spacing: tuple[float, ...], factors: tuple[int, ...]) -> Volume:
    """List positions in mm, ``(3, *fine size)``, relative to the centre of the field of view."""
    axes = [
        (np.arange(n * factor, dtype=np.float32) - (n * factor - 1) / 2) * (step / factor)
        for n, step, factor in zip(size, spacing, factors, strict=True)
    ]
    if len(size) == 2:
        axes.append(np.array([SLICE_HEIGHT]))
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def _turn(rng: np.random.Generator, position: Volume) -> Volume:
    """Turn, scale and bend the positions a little, as heads differ from each other."""
    angles = rng.uniform(-4, 4, 3)
    scale = rng.uniform(0.92, 1.02, 3)
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() / scale[:, None]
    turned = np.tensordot(matrix.astype(np.float32), position, 1)
    for axis in range(3):
        turned[axis] += 1.5 * SmoothNoise(rng, wavelength=45.0)(position)
    return turned


def _average(fine: Volume, factors: tuple[int, ...], ndim: int) -> Volume:
    """Average the fine voxels in each voxel, as the partial-volume effect does."""
    if max(factors) == 1:
        return fine
    return downscale_local_mean(fine, (*factors, *(1,) * (3 - ndim)))


def _acquire(
    rng: np.random.Generator, name: str, fractions: Volume, place: Volume, texture: Volume
) -> Volume:
    """Acquire the tissues as a scanner does: contrast, coil sensitivity (bias field), noise."""
    signal = np.array(SIGNAL[name]) + rng.normal(0, 0.02, len(TISSUES))
    signal[0] = 0
    image = np.tensordot(signal.astype(np.float32), fractions, 1)
    image += np.tensordot(np.array(TEXTURE[name], np.float32), fractions, 1) * texture
    image = np.maximum(image, 0) ** np.float32(np.exp(rng.normal(0, 0.075)))
    x, y, z = (axis / (view / 2) for axis, view in zip(place, FIELD_OF_VIEW, strict=True))
    bias = np.zeros_like(image)
    for term in (x, y, z, x * x, y * y, z * z, x * y, y * z, x * z):
        bias += np.float32(rng.uniform(-0.05, 0.05)) * term
    image *= 1 + np.clip(bias, -0.18, 0.18)
    # The magnitude of a complex signal with Gaussian noise follows the Rice distribution.
    real, imaginary = 0.022 * rng.standard_normal((2, *image.shape), dtype=np.float32)
    return SCANNER_UNITS[name] * np.hypot(image + real, imaginary)
