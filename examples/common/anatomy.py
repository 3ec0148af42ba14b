# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The places of the tissues in the brain phantom.

Every structure is a function from a position to its signed distance in mm, which is negative
inside. A position (x, y, z) is in mm to the right, front and top of the brain's centre. Structures
are painted one over the other, each with a soft edge one voxel wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

Volume = NDArray[np.float32]

TISSUES = ("background", "CSF", "GM", "WM", "deep GM", "oedema", "tumour core", "enhancing rim")
BACKGROUND, CSF, GM, WM, DEEP_GM, OEDEMA, CORE, RIM = range(len(TISSUES))

# Right half of the lateral ventricle, (x, y, z, radius) in mm: from the frontal horn over the body
# to the occipital horn, and from the atrium into the temporal horn.
ATRIUM = (25, -30, 10, 6.0)
VENTRICLE = ((15, 44, 2, 2.0), (6, 24, 6, 4.5), (12, -4, 20, 5.0), ATRIUM, (25, -54, 2, 2.0))
TEMPORAL_HORN = (ATRIUM, (33, -8, -16, 2.0), (31, 8, -22, 1.5))
BRAIN_STEM = ((0, -8, -14, 11.0), (0, -26, -75, 9.0))
# Caudate head, lentiform nucleus, thalamus: centre and radii in mm.
NUCLEI = (
    ((14, 28, 5), (5.5, 10, 10)),
    ((26, 17, 2), (6.5, 15, 10)),
    ((11, -5, 5), (9, 14, 9)),
)


class SmoothNoise:
    """A random function of the position with standard deviation 1 and one main wavelength in mm."""

    EXTENT = 120.0  # mm from the centre to each side

    def __init__(self, rng: np.random.Generator, wavelength: float) -> None:
        # The noise has a grid of its own, so that it does not depend on the size of the image.
        self.step = wavelength / 6
        n = 2 * int(np.ceil(self.EXTENT / self.step)) + 1
        white = rng.standard_normal((n, n, n), dtype=np.float32)
        band = gaussian_filter(white, 1.1, mode="wrap") - gaussian_filter(white, 1.8, mode="wrap")
        self.values = band / band.std()

    def __call__(self, position: Volume) -> Volume:
        """Evaluate the noise at positions ``(3, ...)`` in mm; the result is ``(...)``."""
        return self._sample(self.values, position)

    def slope(self, position: Volume) -> Volume:
        """Compute the length of the gradient per mm, in the same way."""
        gradient = np.gradient(self.values, self.step)
        return self._sample(np.sqrt(sum(np.square(d) for d in gradient)), position)

    def _sample(self, values: Volume, position: Volume) -> Volume:
        index = position / np.float32(self.step) + np.float32((values.shape[0] - 1) / 2)
        return map_coordinates(values, index, order=1, mode="grid-wrap")


def tissue_fractions(
    rng: np.random.Generator, position: Volume, voxel: float, tumour: bool | None
) -> Volume:
    """Compute the part of each voxel that each tissue fills.

    Args:
        rng: draws the shapes of the subject.
        position: ``(3, ...)`` in mm.
        voxel: mm, the width of a soft edge.
        tumour: whether there is one; None: in 7 subjects of 10.

    Returns:
        ``(8, ...)`` in the order of ``TISSUES``; the sum over the tissues is 1.
    """
    fractions = np.zeros((len(TISSUES), *position.shape[1:]), np.float32)
    fractions[BACKGROUND] = 1

    def paint(tissue: int, distance: Volume, spared: Sequence[int] = ()) -> None:
        inside = np.clip(0.5 - distance / np.float32(voxel), 0, 1)
        gained = inside * (1 - sum(fractions[other] for other in spared))
        for other in set(range(len(TISSUES))) - set(spared):
            fractions[other] *= 1 - inside
        fractions[tissue] += gained

    # The tumour has a generator of its own, so that a subject without it is otherwise the same.
    growth = rng.spawn(1)[0]
    if tumour is None:
        tumour = growth.uniform() < 0.7
    x, y, z = position
    side = np.abs(x)  # both hemispheres are built as the right one
    fluid = rng.uniform(0.7, 1.5)  # atrophy: widens the ventricles and the space around the brain
    ribbon = rng.uniform(2.6, 3.4)  # mm, thickness of the cortex

    cerebrum = _cerebrum(position)
    gap = np.minimum(_sulci(rng, position, cerebrum), _fissures(side, y, z)) - 0.5 * fluid
    cerebellum = _ellipsoid((side, y, z), (18, -52, -42), (36, 30, 24))
    lobes = ((cerebrum, gap), (cerebellum, _folia(y, z) - 0.3))
    for outside, furrow in lobes:
        tissue = np.maximum(outside, -furrow)
        paint(CSF, outside - 2.0 * fluid)
        paint(GM, tissue)
        paint(WM, tissue + ribbon)
    paint(WM, _tube(position, BRAIN_STEM))
    for centre, radii in NUCLEI:
        paint(DEEP_GM, _ellipsoid((side, y, z), centre, radii))
    half = np.stack([side, y, z])
    third = _slab(x, y - 5, z + 4, (13, 10)) - 1.3 * fluid
    widen = 1.5 * (fluid - 1)
    for chamber in (third, _tube(half, VENTRICLE) - widen, _tube(half, TEMPORAL_HORN) - widen):
        paint(CSF, chamber)
    if tumour:
        ball = _tumour(growth, position)
        # Oedema spreads along the white matter; the tumour itself spares nothing but the fluid.
        paint(OEDEMA, ball, spared=(BACKGROUND, CSF, GM))
        paint(RIM, ball + 5, spared=(BACKGROUND, CSF))
        paint(CORE, ball + 8, spared=(BACKGROUND, CSF))
    return fractions


def _tumour(rng: np.random.Generator, position: Volume) -> Volume:
    angle, radius = rng.uniform(-np.pi, np.pi), rng.uniform(15, 24)
    # The centre is never far from the height at which 2D phantoms are cut.
    centre = 42 * np.cos(angle), 48 * np.sin(angle), rng.uniform(-2, 10)
    ball = _ellipsoid(position, centre, (radius, 1.1 * radius, radius))
    return ball + 0.2 * radius * SmoothNoise(rng, wavelength=30.0)(position)


def _cerebrum(position: Volume) -> Volume:
    x, y, z = position
    z = z - 6
    width = 66 - 0.09 * y  # wider behind than in front
    height = np.where(z > 0, 62, 46).astype(np.float32)
    power = 2.3
    radius = np.abs(x / width) ** power + np.abs(y / 84) ** power + np.abs(z / height) ** power
    radius = np.maximum(radius, 1e-3) ** (1 / power)
    return np.sqrt(x * x + y * y + z * z) * (1 - 1 / radius)


def _sulci(rng: np.random.Generator, position: Volume, cerebrum: Volume) -> Volume:
    """Compute the distance to the sulci: sheets inwards from the surface, where a noise is 0."""
    noise = SmoothNoise(rng, wavelength=28.0)
    # The noise depends on the direction and hardly on the depth, so its sheets go inwards.
    length = np.maximum(np.sqrt(np.square(position).sum(0)), 20)
    direction = position * (65 / length) ** 0.7
    sheet = np.abs(noise(direction)) / (noise.slope(direction) + 0.05)
    depth = 19 + 6 * SmoothNoise(rng, wavelength=40.0)(position)
    return np.hypot(sheet, np.maximum(-cerebrum - depth, 0))


def _fissures(side: Volume, y: Volume, z: Volume) -> Volume:
    """Compute the distance to the fissures: between the hemispheres, and the two lateral ones."""
    callosum = 38 * (1 - np.hypot(y / 52, (z - 6) / 32))  # below it the hemispheres are joined
    middle = np.hypot(side, np.maximum(np.maximum(callosum, -24 - z), 0))
    insula = _slab(side - 42 + 0.01 * (y - 14) ** 2, y - 16, z - 4, (17, 13))
    opening = _slab(y - 30 + 0.25 * (side - 40), side - 60, z - 4, (20, 13))
    return np.minimum(middle, np.minimum(insula, opening))


def _folia(y: Volume, z: Volume) -> Volume:
    """Compute the distance to the furrows of the cerebellum, shells at every 7 mm from the stem."""
    radius = np.hypot(y + 20, z + 38)
    return np.abs((radius + 3.5) % 7 - 3.5) + np.maximum(18 - radius, 0)


def _ellipsoid(
    position: Sequence[Volume], centre: Sequence[float], radii: Sequence[float]
) -> Volume:
    parts = zip(position, centre, radii, strict=True)
    radius = np.sqrt(sum(((p - c) / np.float32(r)) ** 2 for p, c, r in parts))
    return (radius - 1) * np.float32(min(radii))


def _slab(across: Volume, u: Volume, v: Volume, half: tuple[float, float]) -> Volume:
    """Compute the distance to a flat rectangle."""
    outside = np.hypot(np.maximum(np.abs(u) - half[0], 0), np.maximum(np.abs(v) - half[1], 0))
    return np.hypot(across, outside)


def _tube(position: Volume, knots: Sequence[Sequence[float]]) -> Volume:
    """Compute the distance to a tube of straight pieces between knots ``(x, y, z, radius)``."""
    nearest = np.full(position.shape[1:], np.inf, np.float32)
    for begin, end in pairwise(np.array(knots, np.float32)):
        piece = end[:3] - begin[:3]
        along = np.tensordot(piece, position, 1) - piece @ begin[:3]
        along = np.clip(along / (piece @ piece), 0, 1)
        away = [p - b - along * d for p, b, d in zip(position, begin[:3], piece, strict=True)]
        radius = begin[3] + along * (end[3] - begin[3])
        nearest = np.minimum(nearest, np.sqrt(sum(np.square(a) for a in away)) - radius)
    return nearest
