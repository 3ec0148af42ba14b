# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A figure of a pair of images, of their normalized gradient fields and of their loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from monai.transforms.utils import generate_spatial_bounding_box
from numpy.typing import NDArray
from torch import Tensor

import nec_ext

from .common.figures import FIELD_EPS

WIDTH = 14.0  # inches; the loss map is two columns wide, every other panel one


def draw(
    path: Path, t1: Tensor, t2: Tensor, loss_map: Tensor, spacing: Sequence[float], eps: float
) -> None:
    """Draw the central axial slice of both images, of their normalized gradient fields and loss.

    Args:
        path: the PNG file to write.
        t1, t2: ``(1, 1, X, Y, Z)`` in [-1, 1]; the axes point right, anterior and superior.
        loss_map: the loss per voxel, of the same shape.
        spacing: mm per axis.
        eps: the eps of ``loss_map``.
    """
    middle = t1.shape[-1] // 2
    below = max(middle - 1, 0)
    low, high = generate_spatial_bounding_box(t1[0], lambda image: image > t1.min(), margin=2)
    size = [(high[axis] - low[axis]) * spacing[axis] for axis in range(2)]

    def axial(volume: Tensor, height: int) -> NDArray[np.float32]:
        # Anterior is up, and the patient's right is on the left, as radiologists look at slices.
        return volume[0, 0, low[0] : high[0], low[1] : high[1], height].numpy()[::-1].T

    def show(axes: Axes, image: NDArray[np.float32], limits: tuple[float, float]) -> AxesImage:
        axes.set(xticks=[], yticks=[])
        extent = (0, size[0], 0, size[1])
        return axes.imshow(image, "gray", origin="lower", extent=extent, clim=limits)

    columns = len(FIELD_EPS) + 3
    height = 2 * size[1] / size[0] * WIDTH / columns + 1.3
    figure = Figure((WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.add_gridspec(2, columns)

    images, fields = [], []
    for row, (name, volume) in enumerate((("T1", t1), ("T2", t2))):
        images.append(figure.add_subplot(grid[row, 0]))
        images[-1].set_title(f"{name}, {'input' if volume is t2 else 'target'}")
        intensity = show(images[-1], axial(volume, middle), (-1, 1))
        # Central differences in a slice need its two neighbours and no more.
        slab = volume[..., below : middle + 2]
        for column, field_eps in enumerate(FIELD_EPS, start=1):
            fields.append(figure.add_subplot(grid[row, column]))
            fields[-1].set_title(f"|n({name})|, eps = {field_eps:g}")
            field = nec_ext.ngf_field(slab, eps=field_eps, spacing=spacing)
            length = show(fields[-1], axial(field.norm(dim=2), middle - below), (0, 1))
    for text, x in (("R", 0.03), ("L", 0.90)):
        images[0].text(x, 0.93, text, color="white", transform=images[0].transAxes)

    last = figure.add_subplot(grid[:, -2:])
    last.set_title(f"loss, eps = {eps:g}; mean of the volume {loss_map.mean():.4f}")
    shown = axial(loss_map, middle)
    # Few voxels come near the least possible loss of 0.5, so the scale begins at a low quantile.
    loss = show(last, shown, (float(np.quantile(shown, 0.002)), 1))

    for mappable, axes, label in (
        (intensity, images, "scaled intensity"),
        (length, fields, "length of the normalized gradient field n, eps in intensity per mm"),
        (loss, last, "loss 1 - <n(T1), n(T2)>² / 2: dark where edges agree"),
    ):
        bar = figure.colorbar(mappable, ax=axes, location="bottom", pad=0.01, aspect=40)
        bar.set_label(label)
        bar.locator = MaxNLocator(nbins=4)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.05)
