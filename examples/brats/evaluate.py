# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Evaluate trained runs on the test images, beside predictions that need no training.

    python -m examples.brats.evaluate out/brats/nec out/brats/pix2pix
    python -m examples.brats.evaluate GAN=out/gan-0 GAN=out/gan-1 nec=out/nec-0
    python -m examples.brats.evaluate out/brats/nec --volume t1n.nii.gz synthetic_t2.nii.gz

The command prints a Markdown page and writes it to ``table.md``. It also writes ``metrics.csv``
with a line per system, seed and image, and for volumes a figure, ``planes.png``. A run is named by
its system, or as NAME=RUN; runs of one name are the seeds of one system.
"""

from __future__ import annotations

import argparse
import typing
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.nifti import DataError
from .model.inference import synthesize
from .report.metrics import MetricOptions
from .report.tables import draw_planes, evaluate, name_and_folder, page, write_csv
from .train.loop import load_generator


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 with one sentence if runs or data cannot be used."""
    parser = make_parser("brats.evaluate", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, or NAME=RUN")
    parser.add_argument("--out", type=Path, default=Path("out/brats/evaluation"))
    for name in ("histogram", "blur_unit", "ssim_window"):
        known = typing.get_args(typing.get_type_hints(MetricOptions)[name])
        parser.add_argument(f"--{name.replace('_', '-')}", choices=known, help="default: the run's")
    parser.add_argument("--blur", type=float, help="of synthetic images; default: the run's")
    parser.add_argument("--case", help="volume of the figure; default: one of median PSNR")
    parser.add_argument(
        "--volume",
        nargs=2,
        type=Path,
        metavar=("T1", "OUT"),
        help="only synthesize the T2 of a whole NIfTI volume, with one RUN",
    )
    parsed = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return exit_code(
        lambda: _synthesize(parsed, device) if parsed.volume else _evaluate(parsed, device)
    )


def _synthesize(parsed: argparse.Namespace, device: str) -> None:
    if len(parsed.runs) != 1:
        raise DataError("--volume needs exactly one RUN")
    generator, trained = load_generator(name_and_folder(parsed.runs[0])[1])
    synthesize(*parsed.volume, generator.to(device), trained.data, device)


def _evaluate(parsed: argparse.Namespace, device: str) -> None:
    protocol = {field.name: getattr(parsed, field.name) for field in fields(MetricOptions)}
    changes = {name: value for name, value in protocol.items() if value is not None}
    evaluation = evaluate(parsed.runs, device, changes)
    text = page(evaluation)
    parsed.out.mkdir(parents=True, exist_ok=True)
    write_csv(evaluation.rows, parsed.out / "metrics.csv")
    (parsed.out / "table.md").write_text(text, "utf-8")
    print(text)
    if isinstance(evaluation.images.t2, list):
        draw_planes(evaluation, parsed.out / "planes.png", parsed.case)
    print(f"written: {parsed.out}")


if __name__ == "__main__":
    run_command(main)
