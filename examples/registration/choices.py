# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Draw what eps and a mask do to the NGF loss: the figures of docs/choosing.md.

python -m examples.registration.choices t1n.nii.gz t2w.nii.gz   # aligned, skull-stripped
python -m examples.registration.choices                         # a brain phantom
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor

import nec_ext
from nec_ext._console import run_command

from ..common.figures import brain_box
from .images import Problem
from .measure import run
from .options import SETTINGS, exit_code, make_parser, pair_name, problems
from .warp import target_registration_error, warp

ETAS = {0.01: "eps too small", 0.2: "eps to start with", 20.0: "eps too large"}
SHIFTS = range(-16, 17)  # mm
RADIUS = 30.0  # mm, of the ball that the second figure compares
PANEL = 2.6  # inches


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if stopped."""
    options = make_parser("registration.choices", __doc__, "out/choices").parse_args(arguments)

    def draw() -> None:
        options.out.mkdir(parents=True, exist_ok=True)
        for t1, _, problem in problems(options):
            pair = pair_name(t1.path)
            draw_eps(options.out / f"{pair}-eps.png", pair, problem, options.levels)
            draw_mask(options.out / f"{pair}-mask.png", problem)

    return exit_code(draw)


class AxialSlice:
    """Shows the axial slice through the middle of the brain, of any volume."""

    def __init__(self, brain: Tensor) -> None:
        self.height = int(brain[0, 0].nonzero()[:, 2].median())
        self.box = brain_box(brain[0, ..., self.height])

    def show(
        self,
        axes: Axes,
        volume: Tensor,
        title: str,
        colors: str = "gray",
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> AxesImage:
        """Draw the slice of a volume ``(1, 1, X, Y, Z)``."""
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=10)
        image = self.box.cut(volume[0, 0, :, :, self.height].numpy())
        return axes.imshow(image, colors, clim=limits, interpolation="nearest")


def noise_levels(problem: Problem, eta: float) -> dict[str, Tensor]:
    """Estimate the eps of input and target, T1 and T2, in the brain."""
    images = {"eps": problem.aligned, "target_eps": problem.fixed}
    return {
        name: nec_ext.estimate_eps(image, eta, spacing=problem.spacing, mask=problem.brain)
        for name, image in images.items()
    }


def draw_eps(path: Path, pair: str, problem: Problem, levels: int) -> None:
    """Draw the fields, the loss and the errors of a registration for three noise levels."""
    t1, t2 = problem.aligned, problem.fixed
    none = torch.zeros_like(problem.known.truth)

    def errors(displacement: Tensor) -> Tensor:
        return target_registration_error(displacement, problem.known.truth) * problem.brain

    before = errors(none)
    millimetres = (0.0, float(before.max()))
    figure = Figure((PANEL * 4 + 1, PANEL * 5), layout="constrained")
    panels = figure.subplots(4, 4)
    view = AxialSlice(problem.brain)
    view.show(panels[0, 0], t1, "T1")
    view.show(panels[1, 0], t2, "T2")
    view.show(
        panels[3, 0], before, f"before: {before[problem.brain].mean():.2f} mm", "magma", millimetres
    )
    curves = panels[2, 0]
    for column, (eta, words) in enumerate(ETAS.items(), start=1):
        eps = noise_levels(problem, eta)
        for row, (name, image) in enumerate({"T1": t1, "T2": t2}.items()):
            field = nec_ext.ngf_field(image, list(eps.values())[row], spacing=problem.spacing)
            title = f"{words}\n(eta = {eta:g})\n|n({name})|" if row == 0 else f"|n({name})|"
            length = view.show(panels[row, column], field.norm(dim=2), title)
        loss = partial(nec_ext.ngf_loss, spacing=problem.spacing, **eps)
        losses = loss(t1, t2, reduction="none")
        title = f"loss: {losses[problem.brain].mean():.3f}"
        mapped = view.show(panels[2, column], losses, title, limits=(0.5, 1))
        if losses.min() > 0.99:
            middle = {"xy": (0.5, 0.5), "xycoords": "axes fraction", "ha": "center"}
            mapped.axes.annotate("above 0.99\neverywhere", **middle)
        agreement = np.array(
            [1 - loss(shifted(problem, mm), t2, mask=problem.brain).item() for mm in SHIFTS]
        )
        curves.plot(SHIFTS, agreement / agreement.max(), label=f"eta = {eta:g}")
        _, displacement = run(pair, problem, replace(SETTINGS["ngf"], detail=eta), levels)
        error = errors(displacement)
        title = f"registered: {error[problem.brain].mean():.2f} mm"
        tre = view.show(panels[3, column], error, title, "magma", millimetres)
    decorate(curves)
    for mappable, row, label in (
        (length, 0, "length of the field"),
        (length, 1, "length of the field"),
        (mapped, 2, "loss of the aligned pair"),
        (tre, 3, "error, mm"),
    ):
        figure.colorbar(mappable, ax=list(panels[row]), label=label, pad=0.01)
    figure.savefig(path, dpi=80)


def shifted(problem: Problem, mm: float) -> Tensor:
    """Shift the aligned T1 to the left."""
    displacement = torch.zeros_like(problem.known.truth)
    displacement[:, 0] = mm
    return warp(problem.aligned, displacement, problem.spacing)


def draw_mask(path: Path, problem: Problem) -> None:
    """Draw the loss in a ball, with a mask and of images that are multiplied by it."""
    t2 = problem.fixed
    middle = problem.brain[0, 0].nonzero().double().mean(0)
    axes = [
        (torch.arange(n) - center) * step
        for n, center, step in zip(t2.shape[2:], middle, problem.spacing, strict=True)
    ]
    distance = torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)[None, None]
    ball = distance < RADIUS
    loss = partial(
        nec_ext.ngf_loss, spacing=problem.spacing, **noise_levels(problem, SETTINGS["ngf"].detail)
    )
    ways: dict[str, tuple[Tensor, Callable[..., Tensor]]] = {
        "images times mask": (ball, lambda t1, **k: loss(t1 * ball, t2 * ball, **k)),
        "mask=mask": (ball, lambda t1, **k: loss(t1, t2, **k)),
        "mask=interior_mask(mask)": (
            nec_ext.interior_mask(ball),
            lambda t1, **k: loss(t1, t2, **k),
        ),
    }

    figure = Figure((PANEL * 5 + 1, PANEL * 1.1), layout="constrained")
    panels = figure.subplots(1, 5)
    view = AxialSlice(distance < RADIUS + 6)
    view.show(panels[0], t2, "T2 and the mask")
    outline = view.box.cut(ball[0, 0, :, :, view.height].numpy())
    panels[0].contour(outline, [0.5], colors="#f0e442")
    for panel, (name, (mask, way)) in zip(panels[1:4], ways.items(), strict=True):
        losses = torch.where(mask, way(problem.aligned, reduction="none"), 1.0)
        shown = view.show(panel, losses, f"loss\n{name}", limits=(0.5, 1))
        agreement = np.array([1 - way(shifted(problem, mm), mask=mask).item() for mm in SHIFTS])
        # Over the curve of the interior mask, with which it coincides.
        style = {"lw": 2.5, "ls": "--", "zorder": 3} if name == "mask=mask" else {}
        panels[4].plot(SHIFTS, agreement / agreement.max(), label=name, **style)
    decorate(panels[4])
    figure.colorbar(shown, ax=list(panels[1:4]), label="loss", pad=0.01)
    figure.savefig(path, dpi=80)


def decorate(axes: Axes) -> None:
    """Name what curves of agreement over shifts show."""
    axes.set(xlabel="shift of T1, mm", ylim=(0, 1.05))
    axes.set_title("agreement 1 - loss,\ndivided by its maximum", fontsize=10)
    axes.legend(fontsize=8, loc="lower center")


if __name__ == "__main__":
    run_command(main)
