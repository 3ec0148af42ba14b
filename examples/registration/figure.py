# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The figure of a pair: the moved T1 under contours of the T2 before and after, and the errors.

Heads are shown as radiologists look at them: front up, the patient's left on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..common.figures import Box, brain_box
from .images import Problem
from .warp import target_registration_error, warp

PANEL = 1.6  # inches
LEVELS = 0.1, 0.85  # of the T2: around the brain, and around fluid
TITLES = {"NGF": "NGF", "LNCC": "local cross-\ncorrelation", "MI": "mutual\ninformation"}


def draw(path: Path, problem: Problem, displacements: Mapping[str, Tensor]) -> None:
    """Draw the axial slice through the middle of the brain, and the part whose edges move most.

    Args:
        path: the PNG file to write.
        problem: the images.
        displacements: the displacement of each registration, by its name.
    """
    height = int(problem.brain[0, 0].nonzero()[:, 2].median())

    def axial(volume: Tensor, box: Box) -> np.ndarray:
        return box.cut(volume[0, 0, :, :, height].numpy())

    none = torch.zeros_like(problem.known.truth)
    shown = {"before": none, **displacements}
    errors = {
        name: target_registration_error(displacement, problem.known.truth)
        for name, displacement in shown.items()
    }
    whole = brain_box(problem.brain[0, ..., height])
    edges = torch.stack(torch.gradient(problem.aligned[..., height], dim=(-2, -1))).norm(dim=0)
    part = _largest_mean(errors["before"][..., height] * edges, whole)
    tall = PANEL * whole.height / whole.width
    size = PANEL * len(shown) + 1.1, 2 * tall + PANEL + 0.8
    figure = Figure(size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    ratios = [tall, PANEL, tall]
    panels = figure.subplots(3, len(shown), height_ratios=ratios, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    limit = float(errors["before"][problem.brain].max())
    for column, (name, displacement) in enumerate(shown.items()):
        mean = errors[name][problem.brain].mean()
        title = TITLES.get(name.split(",")[0], name)
        panels[0, column].set_title(f"{title}\nmean error {mean:.2f} mm", fontsize=10)
        moved = warp(problem.moving, displacement, problem.spacing)
        for row, box in enumerate((whole, part)):
            panels[row, column].imshow(axial(moved, box), "gray", clim=(0.2, 1))
            panels[row, column].contour(
                axial(problem.fixed, box), LEVELS, colors="#ff5a1f", linewidths=0.6 + 0.5 * row
            )
        corner = part.x - whole.x - 0.5, part.y - whole.y - 0.5
        panels[0, column].add_patch(
            Rectangle(corner, part.width, part.height, fill=False, edgecolor="#56b4e9", lw=1)
        )
        inside = axial(problem.brain, whole)
        error = np.where(inside, axial(errors[name], whole), np.nan)
        mappable = panels[2, column].imshow(error, "magma", clim=(0, limit))
    for row, label in enumerate(("moved T1,\ncontours of T2", "box, enlarged", "error")):
        panels[row, 0].set_ylabel(label)
    figure.colorbar(mappable, ax=list(panels[2]), label="error, mm", aspect=12, pad=0.01)
    figure.savefig(path, dpi=150, bbox_inches="tight", pad_inches=0.05)


def _largest_mean(error: Tensor, whole: Box) -> Box:
    """Find the square inside the brain's box with the largest mean of a map."""
    side = min(whole.width, whole.height) // 2
    inside = error[..., whole.x : whole.x + whole.width, whole.y : whole.y + whole.height]
    means = F.avg_pool2d(inside[0], side, stride=1)[0]
    x, y = divmod(int(means.argmax()), means.shape[1])
    return Box(whole.x + x, whole.y + y, side, side)
