# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register a T1 to a T2 by the NGF loss, in one file to copy from.

    python -m examples.register_pair                              # the phantom after a known warp
    python -m examples.register_pair --transform affine
    python -m examples.register_pair t1.nii.gz t2.nii.gz          # skull-stripped, on one grid

The example moves the T1 by torch's grid_sample, from coarse images to fine ones, until its edges
lie on the edges of the T2. It writes a figure to out/register_pair. For two files it writes the
registered T1 too; for the phantom it prints the mean error in mm, as the displacement is known.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import nec_ext
from nec_ext._console import run_command

from .common.commands import exit_code
from .common.nifti import as_stored, read_pair
from .common.phantom import brain_phantom

KNOTS = 4  # voxels from one knot of a displacement to the next
RADIUS = 80.0  # mm from the centre, where 1 mm of a matrix parameter moves a voxel by 1 mm

# A displacement u is (1, 3, X, Y, Z) in mm: x in the fixed image is at x + u(x) in the moving one.


def positions(size: Sequence[int], spacing: Sequence[float]) -> Tensor:
    """List the places of all voxels in mm from the centre, ``(1, 3, X, Y, Z)``."""
    axes = [(torch.arange(n) - (n - 1) / 2) * h for n, h in zip(size, spacing, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(image: Tensor, displacement: Tensor, spacing: Sequence[float]) -> Tensor:
    """Sample the image at x + u(x)."""
    size = displacement.shape[2:]
    half = torch.tensor([n * h / 2 for n, h in zip(size, spacing, strict=True)])
    place = (positions(size, spacing) + displacement) / half.view(1, 3, 1, 1, 1)
    grid = place.flip(1).movedim(1, -1)  # grid_sample has the last axis first
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


class Affine(torch.nn.Module):
    """A matrix and a shift; all twelve parameters are in mm."""

    def __init__(self) -> None:
        super().__init__()
        self.parameters_mm = torch.nn.Parameter(torch.zeros(3, 4))

    def forward(self, size: Sequence[int], spacing: Sequence[float]) -> Tensor:
        matrix, shift = self.parameters_mm[:, :3] / RADIUS, self.parameters_mm[:, 3]
        moved = torch.einsum("ij,bjxyz->bixyz", matrix, positions(size, spacing))
        return moved + shift.view(1, 3, 1, 1, 1)


class Displacement(torch.nn.Module):
    """A displacement for every knot, linear in between."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.knots = torch.nn.Parameter(torch.zeros(1, 3, *(max(n // KNOTS, 2) for n in size)))

    def forward(self, size: Sequence[int], spacing: Sequence[float]) -> Tensor:
        return F.interpolate(self.knots, tuple(size), mode="trilinear")

    def roughness(self) -> Tensor:
        """Average the squared differences of neighbouring knots, in mm²."""
        return sum(self.knots.diff(dim=axis).square().mean() for axis in (2, 3, 4))


def register(
    fixed: Tensor, moving: Tensor, spacing: Sequence[float], options: argparse.Namespace
) -> Tensor:
    """Find the displacement that takes the moving image to the fixed one."""
    model = Affine() if options.transform == "affine" else Displacement(fixed.shape[2:])
    for level in tqdm(range(options.levels), desc="levels"):
        factor = 2 ** (options.levels - 1 - level)
        size = [n // factor for n in fixed.shape[2:]]
        images = [F.interpolate(image, size, mode="area") for image in (fixed, moving)]
        steps = [h * n / m for h, n, m in zip(spacing, fixed.shape[2:], size, strict=True)]
        # The mask is the brain and a voxel around it, as its outline is an edge of both images.
        mask = F.max_pool3d(images[0], 3, stride=1, padding=1) > 0
        eps, target_eps = (
            nec_ext.estimate_eps(image, options.eta, spacing=steps, mask=mask)
            for image in images[::-1]
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.2 * min(steps))
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, options.steps)
        for _ in range(options.steps):
            warped = warp(images[1], model(size, steps), steps)
            # Without autograd for the loss alone: its gradient goes on through the warp.
            _, gradient = nec_ext.ngf_loss_and_gradient(
                warped, images[0], eps=eps, target_eps=target_eps, spacing=steps, mask=mask
            )
            optimizer.zero_grad()
            warped.backward(gradient)
            if options.transform == "displacement":
                (options.smoothness * model.roughness()).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return model(fixed.shape[2:], spacing)


def scaled(image: np.ndarray) -> Tensor:
    """Scale the 99th percentile of the brain to 1, as ``(1, 1, X, Y, Z)``; background is 0."""
    bright = float(np.percentile(image[image > 0], 99))
    return torch.from_numpy(np.clip(image / bright, 0, 1).astype(np.float32))[None, None]


def known_displacement(size: Sequence[int], spacing: Sequence[float], bend: float) -> Tensor:
    """Make a displacement that turns, stretches and shifts by up to 10 mm, and bends."""
    matrix = torch.tensor([[0.03, -0.06, 0.02], [0.06, -0.03, 0.03], [-0.02, -0.03, 0.04]])
    place = positions(size, spacing)
    moved = torch.einsum("ij,bjxyz->bixyz", matrix, place)
    shift = torch.tensor([3.0, -2.0, 2.0]).view(1, 3, 1, 1, 1)
    return moved + shift + bend * torch.sin(place.roll(1, dims=1) / 15)


def show(path: Path, fixed: Tensor, columns: dict[str, Tensor]) -> None:
    """Draw the middle slices of images, front up, with contours of the T2's brain and fluid."""
    height = fixed.shape[-1] // 2
    lines = fixed[0, 0, :, :, height].T.numpy()
    figure = Figure((3 * len(columns), 3.6), layout="constrained")
    panels = figure.subplots(1, len(columns))
    for panel, (title, image) in zip(panels, columns.items(), strict=True):
        panel.imshow(image[0, 0, :, :, height].T.numpy(), "gray", origin="lower")
        panel.contour(lines, [0.1, 0.75], colors=["#f0e442", "#56b4e9"], linewidths=0.7)
        panel.set_title(title)
        panel.axis("off")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Register two images, print the error if it is known, and write the figure and the image."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.register_pair",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="T1 T2", help="NIfTI files; none: the phantom")
    add("--transform", choices=("affine", "displacement"), default="displacement")
    add("--levels", type=int, default=3, help="each has half the voxel size of the one before")
    add("--steps", type=int, default=50, help="steps of each level")
    add("--eta", type=float, default=0.2, help="eps, as a share of the brain's mean gradient")
    add("--smoothness", type=float, default=0.02, help="weight of the displacement's roughness")
    add("--size", type=int, nargs=3, default=(80, 96, 80), help="voxels of the phantom")
    add("--out", type=Path, default=Path("out/register_pair"))
    options = parser.parse_args(arguments)
    if len(options.files) not in (0, 2):
        parser.error("give a T1 and a T2, or neither for the phantom")
    return exit_code(lambda: run(options), "stopped")


def run(options: argparse.Namespace) -> None:
    """Register the pair, and write the results."""
    truth = None
    if options.files:
        t1_file, t2_file = read_pair(*options.files)
        spacing = t2_file.steps
        moving, fixed = scaled(t1_file.voxels), scaled(t2_file.voxels)
    else:
        phantom = brain_phantom(options.size, tumour=True)
        spacing, moving = phantom.spacing, scaled(phantom.t1)
        bend = 0.0 if options.transform == "affine" else 3.0
        truth = known_displacement(options.size, spacing, bend)
        fixed = warp(scaled(phantom.t2), truth, spacing)
    if min(fixed.shape[2:]) < KNOTS * 2 ** (options.levels - 1):
        raise ValueError(f"images of {tuple(fixed.shape[2:])} voxels are too small for the levels")

    displacement = register(fixed, moving, spacing, options)
    registered = warp(moving, displacement, spacing)

    options.out.mkdir(parents=True, exist_ok=True)
    if truth is not None:
        brain = fixed[0, 0] > 0
        before, after = (
            torch.linalg.vector_norm(u - truth, dim=1)[0][brain].mean()
            for u in (torch.zeros_like(truth), displacement)
        )
        print(f"mean error in the brain: {before:.2f} mm before, {after:.2f} mm after")
    else:
        image = as_stored(registered[0, 0].numpy(), t2_file)
        nibabel.save(image, options.out / "registered.nii.gz")
    figure = options.out / "register_pair.png"
    show(figure, fixed, {"T2, fixed": fixed, "T1, moving": moving, "T1, registered": registered})
    print(f"figure: {figure}")


if __name__ == "__main__":
    run_command(main)
