# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The figure of a pair: checkerboards of both images before and after, and the errors.

Heads are shown as radiologists look at them: front up, the patient's left on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage.util import compare_images
from torch import Tensor

from ..common.figures import Box, brain_box
from .images import Problem
from .warp import target_registration_error, warp

PANEL = 2.3  # inches
TILE = 20.0  # mm


def draw(path: Path, problem: Problem, displacements: Mapping[str, Tensor]) -> None:
    """Draw the axial slice through the middle of the brain, and the part that the warp moves most.

    Args:
        path: the PNG file to write.
        problem: the images.
        displacements: the displacement of each registration, by its name.
    """
    height = int(problem.brain[0, 0].nonzero()[:, 2].median())

    def axial(volume: Tensor, box: Box) -> np.ndarray:
        return box.cut(volume[0, 0, :, :, height].numpy())

    whole = brain_box(problem.brain[0, ..., height])
    none = torch.zeros_like(problem.known.truth)
    shown = {"before": none, **displacements}
    errors = {
        name: target_registration_error(displacement, problem.known.truth)
        for name, displacement in shown.items()
    }
    moved = {
        name: warp(problem.moving, displacement, problem.spacing)
        for name, displacement in shown.items()
    }

    part = _around_largest((errors["before"] * problem.brain)[0, 0, :, :, height], whole)
    width = PANEL * len(shown)
    tall = PANEL * whole.height / whole.width
    figure = Figure((width + 1.2, 2 * tall + PANEL + 0.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    ratios = [tall, PANEL, tall]
    panels = figure.subplots(3, len(shown), height_ratios=ratios, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    # An inverted T2 has dark fluid and bright white matter as a T1 has, so that edges continue from
    # tile to tile.
    inverted = (1 - problem.fixed) * problem.brain
    limit = float(errors["before"][problem.brain].max())
    for column, name in enumerate(shown):
        mean = errors[name][problem.brain].mean()
        panels[0, column].set_title(f"{name}\nTRE {mean:.2f} mm", fontsize=11)
        for row, box in enumerate((whole, part)):
            board = compare_images(
                axial(inverted, box),
                axial(moved[name], box),
                method="checkerboard",
                n_tiles=_tiles(box, problem.spacing),
            )
            panels[row, column].imshow(board, "gray", clim=(0, 1), interpolation="nearest")
        corner = part.x - whole.x - 0.5, part.y - whole.y - 0.5
        panels[0, column].add_patch(
            Rectangle(corner, part.width, part.height, fill=False, edgecolor="#f0e442", lw=1)
        )
        inside = axial(problem.brain, whole)
        error = np.where(inside, axial(errors[name], whole), np.nan)
        mappable = panels[2, column].imshow(error, "magma", clim=(0, limit))
    for row, label in enumerate(
        ("inverted T2 and moved T1\nin alternating tiles", "a part, enlarged", "TRE")
    ):
        panels[row, 0].set_ylabel(label)
    figure.colorbar(mappable, ax=list(panels[2]), label="mm", aspect=12, pad=0.01)
    figure.savefig(path, dpi=100, bbox_inches="tight", pad_inches=0.05)


def _around_largest(error: Tensor, whole: Box) -> Box:
    """Find a square around the largest error of a slice, inside the brain's box."""
    side = min(whole.width, whole.height) // 2
    x, y = divmod(int(error.argmax()), error.shape[1])
    left = min(max(x - side // 2, whole.x), whole.x + whole.width - side)
    top = min(max(y - side // 2, whole.y), whole.y + whole.height - side)
    return Box(left, top, side, side)


def _tiles(box: Box, spacing: tuple[float, ...]) -> tuple[int, int]:
    """Count the tiles of a box, from front to back and from right to left."""
    return round(box.height * spacing[1] / TILE), round(box.width * spacing[0] / TILE)
