# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A figure of a pair of images, of their normalized gradient fields and of their loss."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from monai.transforms.utils import generate_spatial_bounding_box
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import nec_ext

from .common.figures import FIELD_EPS

WIDTH = 14.0  # inches; the loss map is two columns wide, every other panel one
SUMMARY_WIDTH = 10.0


class Slice:
    """The central axial slice of a pair, cut to the brain, with its fields and its loss.

    Args:
        t1, t2: ``(1, 1, X, Y, Z)`` in [-1, 1]; the axes point right, anterior and superior.
        loss_map: the loss per voxel, of the same shape.
        spacing: mm per axis.
    """

    def __init__(self, t1: Tensor, t2: Tensor, loss_map: Tensor, spacing: Sequence[float]) -> None:
        self.spacing = spacing
        self.middle = t1.shape[-1] // 2
        low, high = generate_spatial_bounding_box(t1[0], lambda image: image > t1.min(), margin=2)
        self.box = tuple(map(slice, low[:2], high[:2]))
        self.size = [(high[axis] - low[axis]) * spacing[axis] for axis in range(2)]
        self.volumes = {"T1": t1, "T2": t2}
        self.loss = self._cut(loss_map[0, 0, ..., self.middle])

    def _cut(self, image: Tensor) -> NDArray[np.float32]:
        # Anterior is up, and the patient's right is on the left, as radiologists look at slices.
        return image[self.box].numpy()[::-1].T

    def image(self, name: str) -> NDArray[np.float32]:
        return self._cut(self.volumes[name][0, 0, ..., self.middle])

    def field_length(self, name: str, eps: float) -> NDArray[np.float32]:
        # Central differences in a slice need its two neighbours and no more.
        below = max(self.middle - 1, 0)
        slab = self.volumes[name][..., below : self.middle + 2]
        field = nec_ext.ngf_field(slab, eps=eps, spacing=self.spacing)
        return self._cut(field.norm(dim=2)[0, 0, ..., self.middle - below])

    def show(
        self, axes: Axes, image: NDArray[np.float32], limits: tuple[float, float], title: str
    ) -> AxesImage:
        axes.set(xticks=[], yticks=[], title=title)
        extent = (0, self.size[0], 0, self.size[1])
        return axes.imshow(image, "gray", origin="lower", extent=extent, clim=limits)

    def show_loss(self, axes: Axes, title: str) -> AxesImage:
        # Few voxels come near the least loss of 0.5, so the scale begins at a low quantile.
        return self.show(axes, self.loss, (float(np.quantile(self.loss, 0.002)), 1), title)


def draw(
    path: Path, t1: Tensor, t2: Tensor, loss_map: Tensor, spacing: Sequence[float], eps: float
) -> None:
    """Draw a slice of both images, of their fields for several eps, and of the loss for one.

    Args:
        path: the PNG file to write.
        t1, t2, loss_map, spacing: see :class:`Slice`.
        eps: the eps of ``loss_map``.
    """
    part = Slice(t1, t2, loss_map, spacing)
    columns = len(FIELD_EPS) + 3
    height = 2 * part.size[1] / part.size[0] * WIDTH / columns + 1.3
    figure = Figure((WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.add_gridspec(2, columns)

    images, fields = [], []
    for row, (name, role) in enumerate((("T1", "target"), ("T2", "input"))):
        images.append(figure.add_subplot(grid[row, 0]))
        intensity = part.show(images[-1], part.image(name), (-1, 1), f"{name}, {role}")
        for column, field_eps in enumerate(FIELD_EPS, start=1):
            fields.append(figure.add_subplot(grid[row, column]))
            lengths = part.field_length(name, field_eps)
            title = f"|n({name})|, eps = {field_eps:g}"
            length = part.show(fields[-1], lengths, (0, 1), title)
    for text, x in (("R", 0.03), ("L", 0.90)):
        images[0].text(x, 0.93, text, color="white", transform=images[0].transAxes)

    last = figure.add_subplot(grid[:, -2:])
    loss = part.show_loss(last, f"loss, eps = {eps:g}; mean of the volume {loss_map.mean():.4f}")
    for mappable, axes, label in (
        (intensity, images, "scaled intensity"),
        (length, fields, "length of the normalized gradient field n, eps in intensity per mm"),
        (loss, last, "loss 1 - <n(T1), n(T2)>² / 2: dark where edges agree"),
    ):
        bar = figure.colorbar(mappable, ax=axes, location="bottom", pad=0.01, aspect=40)
        bar.set_label(label)
        bar.locator = MaxNLocator(nbins=4)
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.05)


def draw_summary(
    path: Path, t1: Tensor, t2: Tensor, loss_map: Tensor, spacing: Sequence[float], eps: float
) -> None:
    """Draw, in one row, a slice of both images, of their fields and of the loss."""
    part = Slice(t1, t2, loss_map, spacing)
    height = part.size[1] / part.size[0] * SUMMARY_WIDTH / 5 + 0.3
    figure = Figure((SUMMARY_WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    panels = figure.subplots(1, 5)
    for k, name in enumerate(("T1", "T2")):
        part.show(panels[k], part.image(name), (-1, 1), name)
        part.show(panels[2 + k], part.field_length(name, eps), (0, 1), f"|n({name})|")
    part.show_loss(panels[4], "loss")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, bbox_inches="tight", pad_inches=0.02)
    Image.open(drawn).convert("L").save(path)  # a third of the size, and grey it was
