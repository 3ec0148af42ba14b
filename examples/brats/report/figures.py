# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The figures of the NEC paper, for any test images and systems.

Heads are shown as radiologists look at them: front up, the patient's left on the right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

import nec_ext

from ...common.figures import FIELD_EPS, MARGIN, Box, brain_box
from ..data.grid import BACKGROUND
from ..data.images import ImageSet
from .metrics import Row

Array = NDArray[np.float32]

PANEL = 1.9  # inches
# The colours of Okabe and Ito, and a grey.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"]


def central_box(box: Box) -> Box:
    """Return a square around the centre of the brain: ventricles and basal ganglia."""
    side = round(0.45 * box.width)
    x, y = box.x + (box.width - side) // 2, box.y + (box.height - side) // 2
    return Box(x, y, side, side)


def fields(path: Path, images: ImageSet, index: int, operator: str, eps_mode: str) -> None:
    """Draw figure 2: normalized gradient fields of both contrasts, from a small eps to a large."""
    box = brain_box(images.brain[index])
    figure, axes = _panels(2, 1 + len(FIELD_EPS), box, extra=0.9)
    for row, (name, image) in enumerate((("T1", images.t1), ("T2", images.t2))):
        intensity = _show(axes[row][0], box.cut(image[index, 0].numpy()), (-1, 1))
        axes[row][0].set_title(name)
        for panel, eps in zip(axes[row][1:], FIELD_EPS, strict=True):
            field = nec_ext.ngf_field(image[index][None], eps, eps_mode, operator)
            length = _show(panel, box.cut(field.norm(dim=2)[0, 0].numpy()), (0, 1))
            panel.set_title(f"|n({name})|, eps = {eps:g}")
    first = [row[0] for row in axes]
    others = [panel for row in axes for panel in row[1:]]
    for mappable, panels, label in (
        (intensity, first, "intensity"),
        (length, others, "length of the normalized gradient field"),
    ):
        figure.colorbar(mappable, ax=panels, location="bottom", pad=0.02, aspect=30, label=label)
    figure.savefig(path, dpi=120)


def side_by_side(path: Path, images: ImageSet, fakes: Mapping[str, Tensor], index: int) -> None:
    """Draw figure 3 or 4: one test image by every system, with its centre enlarged.

    Args:
        path: the PNG file to write.
        images: the test images.
        fakes: the synthetic T2 of all images by system, as they are compared: ``(N, 1, H, W)``.
        index: the index of the image.
    """
    box = brain_box(images.brain[index])
    zoom = central_box(box)
    shown = {"T1, the source": images.t1, "T2, the truth": images.t2, **fakes}
    figure, axes = _panels(2, len(shown), box)
    for column, (name, stack) in enumerate(shown.items()):
        image = stack[index, 0].numpy()
        whole, part = axes[0][column], axes[1][column]
        _show(whole, box.cut(image), (-1, 1))
        corner = zoom.x - box.x - 0.5, zoom.y - box.y - 0.5
        whole.add_patch(
            Rectangle(corner, zoom.width, zoom.height, fill=False, edgecolor="#f0e442", lw=1)
        )
        whole.set_title(name)
        _show(part, zoom.cut(image), (-1, 1))
    figure.savefig(path, dpi=120)


def planes(path: Path, volumes: Mapping[str, Array]) -> None:
    """Draw the middle axial, coronal and sagittal plane of volumes ``(X, Y, Z)``, in columns.

    Front or top is up, the patient's left on the right; sagittal planes have the front on the left.

    Args:
        path: the PNG file to write.
        volumes: volumes of one brain, by their titles.
    """
    columns = {title: three_planes(volume) for title, volume in volumes.items()}
    height, width = next(iter(columns.values())).shape
    figure, axes = _panels(1, len(columns), Box(0, 0, width, height))
    for panel, (title, image) in zip(axes[0], columns.items(), strict=True):
        _show(panel, image, (-1, 1))
        panel.set_title(title)
    _, y, z = next(iter(volumes.values())).shape
    middles = y / 2, y + MARGIN + z / 2, y + z + 2 * MARGIN + z / 2
    axes[0][0].set_yticks(middles, ["axial", "coronal", "sagittal"], rotation=90, va="center")
    axes[0][0].tick_params(length=0)
    figure.savefig(path, dpi=120, bbox_inches="tight")  # titles may have several lines


def three_planes(volume: Array) -> Array:
    """Stack the middle planes, as rows from front to back or from top to bottom."""
    x, y, z = (n // 2 for n in volume.shape)
    images = volume[:, :, z].T, volume[:, y, ::-1].T, volume[x, :, ::-1].T
    width = max(image.shape[1] for image in images)

    def centred(image: Array) -> Array:
        left = (width - image.shape[1]) // 2
        sides = left, width - image.shape[1] - left
        return np.pad(image, ((0, MARGIN), sides), constant_values=BACKGROUND)

    return np.concatenate([centred(image) for image in images])


def psnr_distribution(path: Path, rows: Sequence[Row]) -> None:
    """Draw figure 5 as boxes: PSNR of the test images, all seeds of a system together."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(str(row["system"]), []).append(float(row["psnr"] or 0))
    names = sorted(values, key=lambda name: np.median(values[name]))  # the best is on top
    figure = Figure((6.4, 0.6 + 0.4 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    axes.boxplot(
        [values[name] for name in names],
        orientation="horizontal",
        widths=0.55,
        patch_artist=True,
        boxprops={"facecolor": "#56b4e9", "edgecolor": "none"},
        medianprops={"color": "black", "lw": 2},
        flierprops={"marker": ".", "markersize": 3},
        tick_labels=[f"{name} (n = {len(values[name])})" for name in names],
    )
    for y, median in enumerate((np.median(values[name]) for name in names), start=1):
        axes.text(median, y + 0.33, f"{median:.1f}", ha="center", fontsize=8)
    axes.set_xlabel("PSNR of a test image, dB")
    axes.locator_params(axis="x", integer=True)
    axes.grid(axis="x", lw=0.4, alpha=0.5)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _panels(
    rows: int, columns: int, box: Box, extra: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of equal panels without axes, with ``extra`` inches of room below them."""
    height = PANEL * box.height / box.width
    size = (columns * PANEL, rows * height + 0.35 + extra)
    figure = Figure(size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def _show(axes: Axes, image: Array, limits: tuple[float, float]) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    return axes.imshow(image, "gray", clim=limits, interpolation="nearest")
