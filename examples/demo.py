# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Compute the NGF loss of a T1/T2 volume pair: fused, in eager PyTorch and through torch.compile.

    python -m examples.demo                                    # a brain phantom
    python -m examples.demo --t1 t1n.nii.gz --t2 t2w.nii.gz    # an aligned pair, say of BraTS

The demo prints value, errors, time and memory of all three. It also draws the normalized gradient
fields of both images and the loss of each voxel. As in the code of the NEC paper, the 1 and 99.9
percentiles of each volume are scaled to -1 and 1. Distances are in mm, as the file's header gives
them.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.transforms import ScaleIntensityRangePercentiles
from monai.utils import convert_to_tensor
from torch import Tensor
from tqdm import tqdm

import nec_ext
from nec_ext._console import run_command

from .common import nifti
from .common.eager import eager_ngf_loss
from .common.measure import LossFunction, forward_only, loss_and_gradient, median_times, peak_memory
from .common.phantom import brain_phantom
from .demo_figure import draw, draw_summary

EPS = 0.15  # intensity per mm, as in the paper
PERCENTILES = 1.0, 99.9
ROUNDS = 7
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-6, 1e-5  # of float32 against the float64 reference
LEGEND = """\
eager:    the leanest formula known (pad, slice, one quotient). It adds 1e-12 under its square
          roots, since the gradient of the constant background would be NaN.
compiled: torch.compile of eager.
errors:   of the loss and (L2) of its gradient, relative to nec_ext.reference in float64.
time:     median of {rounds} rounds in which all take turns, with {threads} threads.
memory:   peak of loss and gradient above the two images, in volumes of the images' size."""


class Pair(NamedTuple):
    """Aligned images ``(1, 1, X, Y, Z)`` in [-1, 1], axes pointing right, anterior and superior."""

    name: str
    t1: Tensor
    t2: Tensor
    spacing: tuple[float, ...]  # mm per axis


@dataclass
class Row:
    """One line of the table; times in ms, memory in volumes."""

    method: str
    failure: str | None = None
    loss: float = float("nan")
    loss_error: float = float("nan")
    gradient_error: float = float("nan")
    time: float = float("nan")
    forward_time: float = float("nan")
    memory: float = float("nan")


# ------------------------------------------------------------------------------------------------
# Input
# ------------------------------------------------------------------------------------------------


def read_pair(t1_path: Path, t2_path: Path) -> Pair:
    """Read two NIfTI files of one subject; raise ValueError if they cannot be used."""
    t1, t2 = nifti.read_pair(t1_path, t2_path)
    name = f"{t1_path.name}, {t2_path.name}"
    images = (_scale(volume.path, _facing_front(volume.voxels)) for volume in (t1, t2))
    return Pair(name, *images, t1.steps)


def phantom_pair(size: Sequence[int]) -> Pair:
    """Make the brain phantom whose subject 6 has a tumour in the slice that the figure shows."""
    phantom = brain_phantom(size, index=6, tumour=True)
    return Pair("phantom", _scale("T1", phantom.t1), _scale("T2", phantom.t2), phantom.spacing)


def _facing_front(voxels: nifti.Array) -> nifti.Array:
    """Turn the axes of a volume from left and back to right and front."""
    return voxels[::-1, ::-1]


def _scale(name: object, volume: np.ndarray) -> Tensor:
    low, high = np.percentile(volume, PERCENTILES)
    if not low < high:
        raise ValueError(f"{name} has no contrast: its 1 and 99.9 percentiles are both {low:g}")
    scale = ScaleIntensityRangePercentiles(*PERCENTILES, b_min=-1.0, b_max=1.0, clip=True)
    image = convert_to_tensor(scale(volume), dtype=torch.float32, track_meta=False)
    return image[None, None].contiguous()


# ------------------------------------------------------------------------------------------------
# Comparison
# ------------------------------------------------------------------------------------------------


def compare(pair: Pair) -> list[Row]:
    """Compare the ways to compute the loss, a row for each; T2 is the input, T1 the target."""
    options = {"eps": EPS, "spacing": pair.spacing}
    eager = functools.partial(eager_ngf_loss, **options)
    functions: dict[str, LossFunction] = {
        "fused": functools.partial(nec_ext.ngf_loss, **options),
        "eager": eager,
        "compiled": torch.compile(eager),
    }
    with tqdm(total=1 + len(functions) + ROUNDS, unit="step", leave=False) as bar:
        bar.set_description("float64 reference")
        reference = functools.partial(nec_ext.reference.ngf_loss, **options)
        exact = loss_and_gradient(reference, pair.t2.double(), pair.t1.double())
        rows = []
        for method, function in functions.items():
            bar.update()
            bar.set_description("compiling" if method == "compiled" else f"checking {method}")
            rows.append(examine(method, function, pair, exact))
        bar.update()
        bar.set_description("timing")
        working = [row for row in rows if not row.failure]
        calls = [
            functools.partial(step, functions[row.method], pair.t2, pair.t1)
            for step in (loss_and_gradient, forward_only)
            for row in working
        ]
        times = median_times(calls, ROUNDS, after_round=bar.update)
    for k, row in enumerate(working):
        row.time, row.forward_time = times[k], times[len(working) + k]
    return rows


def examine(method: str, function: LossFunction, pair: Pair, exact: tuple[Tensor, Tensor]) -> Row:
    """Fill a row except for its times; the calls that this takes also warm the function up."""
    row = Row(method)
    try:
        forward_only(function, pair.t2, pair.t1)
        loss, gradient = loss_and_gradient(function, pair.t2, pair.t1)
    except Exception as error:  # a missing or broken compiler shows in errors of many types
        if method != "compiled":
            raise
        row.failure = f"torch.compile failed: {type(error).__name__}"
        return row
    row.loss = loss.item()
    row.loss_error = abs(row.loss / exact[0].item() - 1)
    row.gradient_error = ((gradient - exact[1]).norm() / exact[1].norm()).item()
    peak = peak_memory(functools.partial(loss_and_gradient, function, pair.t2, pair.t1))
    row.memory = peak / (pair.t1.numel() * pair.t1.element_size())
    return row


# ------------------------------------------------------------------------------------------------
# Output
# ------------------------------------------------------------------------------------------------


def table(pair: Pair, rows: Sequence[Row]) -> str:
    """Format the rows as text, with a legend."""
    shape = " x ".join(str(n) for n in pair.t1.shape[2:])
    spacing = " x ".join(f"{step:.3g}" for step in pair.spacing)
    lines = [
        f"NGF loss of {pair.name}",
        f"{shape} voxels of {spacing} mm, eps {EPS}",
        "",
        f"{'':<9} {'loss':>10} {'error':>7} {'gradient':>9}   {'loss and gradient':>19}   "
        f"{'loss alone':>19}   {'memory':>7}",
        f"{'':<9} {'':>10} {'':>7} {'error':>9}   {'ms':>9} {'of fused':>9}   "
        f"{'ms':>9} {'of fused':>9}   {'volumes':>7}",
    ]
    fused = rows[0]
    for row in rows:
        if row.failure:
            lines.append(f"{row.method:<9} {row.failure}")
            continue
        lines.append(
            f"{row.method:<9} {row.loss:10.7f} {row.loss_error:7.0e} {row.gradient_error:9.0e}   "
            f"{row.time:9.1f} {row.time / fused.time:8.1f}x   "
            f"{row.forward_time:9.1f} {row.forward_time / fused.forward_time:8.1f}x   "
            f"{row.memory:7.2f}"
        )
    return "\n".join((*lines, "", LEGEND.format(rounds=ROUNDS, threads=torch.get_num_threads())))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0, 1 if the fused loss is not exact, 2 if the input cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--t1", type=Path, help="NIfTI file of the target")
    parser.add_argument("--t2", type=Path, help="NIfTI file of the input")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="output folder")
    parser.add_argument(
        "--size",
        type=int,
        nargs=3,
        metavar=("X", "Y", "Z"),
        default=(160, 192, 160),
        help="voxels of the phantom along right, anterior and superior",
    )
    options = parser.parse_args(arguments)
    try:
        if (options.t1 is None) != (options.t2 is None):
            raise ValueError("give both --t1 and --t2, or neither for the phantom")
        pair = read_pair(options.t1, options.t2) if options.t1 else phantom_pair(options.size)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    rows = compare(pair)
    print(table(pair, rows))
    facts = {
        "input": pair.name,
        "shape": list(pair.t1.shape[2:]),
        "spacing_mm": pair.spacing,
        "eps": EPS,
        "threads": torch.get_num_threads(),
        "build": nec_ext.build_info(),
        "rows": [
            {"method": row.method, "failure": row.failure} if row.failure else asdict(row)
            for row in rows
        ],
    }
    (options.out / "result.json").write_text(json.dumps(facts, indent=2) + "\n")
    loss_map = nec_ext.ngf_loss(pair.t2, pair.t1, eps=EPS, spacing=pair.spacing, reduction="none")
    print()
    for name, drawn in (("ngf", draw), ("summary", draw_summary)):
        figure = options.out / f"{name}.png"
        drawn(figure, pair.t1, pair.t2, loss_map, pair.spacing, EPS)
        print(f"figure: {figure}")
    fused = rows[0]
    if not (fused.loss_error <= LOSS_TOLERANCE and fused.gradient_error <= GRADIENT_TOLERANCE):
        print("error: the fused loss differs from its reference", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    run_command(main)
