# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Before and after in one figure: a checkerboard of both images, and the error that remains.

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

from ..brats.figures import Box, brain_box, central_box
from .images import Problem
from .warp import target_registration_error, warp

PANEL = 2.3  # inches
TILES = (9, 9)


def draw(path: Path, problem: Problem, displacements: Mapping[str, Tensor]) -> None:
    """The axial slice through the middle of the brain.

    Args:
        path: the PNG file to write.
        problem: the images.
        displacements: of each registration by its name.
    """
    height = int(problem.brain[0, 0].nonzero()[:, 2].median())

    def axial(volume: Tensor, box: Box) -> np.ndarray:
        return box.cut(volume[0, 0, :, :, height].numpy())

    whole = brain_box(problem.brain[0, ..., height])
    centre = central_box(whole)
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

    width = PANEL * len(shown)
    tall = PANEL * whole.height / whole.width
    figure = Figure((width + 1.2, 2 * tall + PANEL + 0.9), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    ratios = [tall, PANEL * centre.height / centre.width, tall]
    panels = figure.subplots(3, len(shown), height_ratios=ratios, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    limit = float(errors["before"][problem.brain].max())
    for column, name in enumerate(shown):
        mean = errors[name][problem.brain].mean()
        panels[0, column].set_title(f"{name}\nTRE {mean:.2f} mm", fontsize=11)
        for row, box in enumerate((whole, centre)):
            board = compare_images(
                axial(problem.fixed, box),
                axial(moved[name], box),
                method="checkerboard",
                n_tiles=TILES if row == 0 else (5, 5),
            )
            panels[row, column].imshow(board, "gray", clim=(0, 1), interpolation="nearest")
        corner = centre.x - whole.x - 0.5, centre.y - whole.y - 0.5
        panels[0, column].add_patch(
            Rectangle(corner, centre.width, centre.height, fill=False, edgecolor="#f0e442", lw=1)
        )
        inside = axial(problem.brain, whole)
        error = np.where(inside, axial(errors[name], whole), np.nan)
        mappable = panels[2, column].imshow(error, "magma", clim=(0, limit))
    for row, label in enumerate(
        ("T2, fixed, and T1, moved,\nin alternating tiles", "the same, enlarged", "TRE")
    ):
        panels[row, 0].set_ylabel(label)
    figure.colorbar(mappable, ax=list(panels[2]), label="mm", aspect=12, pad=0.01)
    figure.savefig(path, dpi=100)
