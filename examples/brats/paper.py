# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Reproduce the NEC paper: train its systems, evaluate them, and write its table and figures.

    python -m examples.brats.paper --preset cpu                     # the phantom, in minutes
    python -m examples.brats.paper --seeds 0,1,2 data.data=/data/BraTS2023

The command writes a page, ``README.md``, its figures and ``metrics.csv`` to the output folder, and
the runs to ``runs`` in it. It keeps the runs that are finished there, and resumes interrupted ones.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.nifti import DataError
from ..common.tables import markdown
from .data.images import ImageSet
from .options import Options
from .presets import PAPER, PRESETS
from .report import figures
from .report.metrics import Row, post_processed
from .report.tables import evaluate, page, write_csv
from .train.records import read_facts
from .train.runs import Run, finished, make_run, train_all

# Each name in the tables has a system and the options that it changes. The last line leaves the
# loss out, which shows its effect.
SYSTEMS: dict[str, tuple[str, dict[str, object]]] = {
    "NEC": ("nec", {}),
    "Pix2Pix": ("pix2pix", {}),
    "CycleGAN": ("cyclegan", {}),
    "CUT": ("cut", {}),
    "GAN alone": ("nec", {"lambda_ngf": 0}),
}
# CUT has no form in 3D, so the paper's systems have no preset for volumes.
SLICE_PRESETS = sorted(name for name in PRESETS if name != "volumes")
# These are PSNR in dB and SSIM on BraTS 2023 in table 1 of Jaouen et al., ISBI 2024.
PUBLISHED = {
    "NEC": "24.47 / 0.893",
    "Pix2Pix": "24.62 / 0.894",
    "CycleGAN": "21.91 / 0.825",
    "CUT": "15.98 / 0.656",
}
CASE = "BraTS-GLI-01152-000"  # the image in the paper's figure 3
CITATION = (
    "Data: the BraTS challenges. U. Baid et al., arXiv:2107.02314; B. H. Menze et al., IEEE TMI "
    "2015, doi 10.1109/TMI.2014.2377694; S. Bakas et al., Scientific Data 2017, doi "
    "10.1038/sdata.2017.117; M. Adewole et al., arXiv:2305.19369."
)


def seeds(text: str) -> tuple[int, ...]:
    """Parse different whole numbers, as in ``0,1,2``."""
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def plan(preset: str, seeds: Sequence[int], folder: Path, values: dict[str, object]) -> list[Run]:
    """List the runs that a preset has, the longest first, so that none is left alone at the end."""
    known = PRESETS[preset] or PAPER
    names = [name for name in SYSTEMS if SYSTEMS[name][0] in known]
    names.sort(key=lambda name: name not in ("CUT", "CycleGAN"))
    return [
        make_run(name, SYSTEMS[name][0], preset, seed, folder, values, SYSTEMS[name][1])
        for name in names
        for seed in seeds
    ]


def draw(
    folder: Path,
    options: Options,
    rows: Sequence[Row],
    images: ImageSet,
    fakes: Mapping[str, Tensor],
    case: str | None,
) -> dict[str, str]:
    """Draw all figures; return their captions by file name.

    Args:
        folder: the folder for the figures.
        options: the options of NEC.
        rows, images: the scores, and the test images.
        fakes: the synthetic images of the first run of every system, as they are compared,
            ``(N, 1, ...)``.
        case: the image of figures 2 and 3; None: the paper's, or else one of median PSNR.
    """
    psnr = {
        (str(row["system"]), str(row["id"])): float(row["psnr"] or 0)
        for row in reversed(rows)  # the first seed wins
    }
    nec = {name: psnr["NEC", name] for name in images.names}
    worst = min(nec, key=nec.__getitem__)
    typical = min(nec, key=lambda name: abs(nec[name] - statistics.median(nec.values())))
    if case is None:
        case = CASE if CASE in images.names else typical
    if case not in images.names:
        raise DataError(f"there is no test image {case}: they are {images.names[0]} and others")

    def with_psnr(name: str) -> dict[str, Tensor]:
        return {f"{system}\n{psnr[system, name]:.1f} dB": fake for system, fake in fakes.items()}

    index = {name: k for k, name in enumerate(images.names)}
    # The length of an augmented field is 1 everywhere; its spatial part is the quadrature's field.
    eps_mode = "quadrature" if options.eps_mode == "augmented" else options.eps_mode
    figures.fields(folder / "fields.png", images, index[case], options.operator, eps_mode)
    figures.side_by_side(folder / "systems.png", images, with_psnr(case), index[case])
    figures.side_by_side(folder / "worst.png", images, with_psnr(worst), index[worst])
    figures.psnr_distribution(folder / "psnr.png", rows)
    return {
        "fields.png": f"Normalized gradient fields of {case} (figure 2 of the paper).",
        "systems.png": f"{case} by the first seed of every system, after the histogram matching, "
        "with its PSNR; below, the square enlarged (figure 3).",
        "worst.png": f"The same for {worst}, where NEC's PSNR is lowest (figure 4).",
        "psnr.png": "PSNR over the test images, all seeds of a system together (figure 5).",
    }


def costs(runs: Sequence[Run]) -> str:
    """Format a table of the steps and the minutes that the trainings took."""
    lines = []
    for name in SYSTEMS:
        if not (facts := [read_facts(run.options.folder) for run in runs if run.name == name]):
            continue
        minutes = min(run_facts["seconds"] for run_facts in facts) / 60
        best = ", ".join(str(run_facts["best_step"]) for run_facts in facts)
        lines.append((name, facts[0]["step"], best, f"{minutes:.1f}"))
    titles = "system", "steps", "best at step, by seed", "minutes, the fastest run"
    return markdown(titles, lines)


def circumstances(runs: Sequence[Run], command: Sequence[str]) -> str:
    """Name the command, without the folders of files, and the versions with which it ran."""
    facts: dict[str, Any] = read_facts(runs[0].options.folder)
    words = []
    for word in command:
        start, equals, path = word.rpartition("=")
        words.append(start + equals + (Path(path).name if Path(path).is_absolute() else path))
    device = f"CPU with {os.cpu_count()} cores" if facts["device"] == "cpu" else facts["device"]
    return (
        f"`python -m examples.brats.{shlex.join(words)}`, commit {facts['commit']}, "
        f"torch {facts['torch']}, monai {facts['monai']}, {device}."
    )


def write(
    folder: Path, runs: Sequence[Run], command: Sequence[str], device: str, case: str | None
) -> list[Row]:
    """Evaluate the runs, write page, figures and metrics.csv, and return the rows of the latter."""
    evaluation = evaluate([f"{run.name}={run.options.folder}" for run in runs], device)
    rows, images, protocol, raw_fakes = evaluation
    order = [name for name in SYSTEMS if name in raw_fakes]
    fakes = {name: post_processed(raw_fakes[name], images, protocol) for name in order}
    rows.sort(key=lambda row: order.index(row["system"]) if row["system"] in order else -1)
    write_csv(rows, folder / "metrics.csv")
    nec = next(run for run in runs if run.name == "NEC").options
    captions = draw(folder, nec, rows, images, fakes, case)
    parts = [
        "# T1 to T2, one-sided and unpaired: the NEC paper's systems",
        circumstances(runs, command),
        CITATION if nec.data.data else "Data: the brain phantom of `examples/common/phantom.py`.",
        page(evaluation, PUBLISHED).rstrip(),
        "Published: PSNR and SSIM in table 1 of Jaouen, Conze and Visvikis, ISBI 2024, with 400 "
        "and 400 training slices of 256x256 pixels and 441 test slices. GAN alone: NEC with a "
        "weight of 0 for its loss. Three predictions need no training: identity is the T1 itself; "
        "negation in the brain is its negative; the best intensity map is one curve from T1 to T2 "
        "intensities, with the least squared error over the training pairs.",
        *(f"![{name}]({name})\n\n{caption}" for name, caption in captions.items()),
        costs(runs),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    gpu = torch.cuda.is_available()
    parser = make_parser("brats.paper", __doc__)
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="options of all systems")
    parser.add_argument("--preset", choices=SLICE_PRESETS, default="paper")
    parser.add_argument("--seeds", type=seeds, default=(0,), metavar="N,N,...", help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("out/paper"))
    parser.add_argument(
        "--jobs",
        type=int,
        default=1 if gpu else os.cpu_count(),
        help="trainings at a time; default: one per core, on a GPU one",
    )
    parser.add_argument(
        "--finished", action="store_true", help="train nothing: compare the runs that are finished"
    )
    parser.add_argument("--case", help="test image of figures 2 and 3")
    parsed = parser.parse_intermixed_args(arguments)
    return exit_code(lambda: _paper(parsed, ["paper", *arguments], "cuda" if gpu else "cpu"))


def _paper(parsed: argparse.Namespace, command: Sequence[str], device: str) -> None:
    if bad := [value for value in parsed.values if "=" not in value]:
        raise ValueError(f"options are given as key=value, got {bad[0]!r}")
    values: dict[str, object] = dict(value.split("=", 1) for value in parsed.values)
    runs = plan(parsed.preset, parsed.seeds, parsed.out / "runs", values)
    if parsed.finished:
        runs = [run for run in runs if finished(run)]
        if "NEC" not in {run.name for run in runs}:
            raise ValueError(f"{parsed.out}/runs has no finished run of NEC")
    else:
        train_all(runs, parsed.jobs)
    write(parsed.out, runs, command, device, parsed.case)
    print((parsed.out / "README.md").read_text("utf-8"))
    print(f"written: {parsed.out}/README.md, metrics.csv and figures")


if __name__ == "__main__":
    run_command(main)
