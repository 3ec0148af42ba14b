# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register a T1 to the T2 of the same brain with FireANTs: NGF beside its own losses.

    python -m examples.hosts.fireants_brats DATA             # the results
    python -m examples.hosts.fireants_brats DATA --search NGF    # the search for settings

DATA has a folder for each BraTS subject. The T2 is fixed. The moving image is the T1 under a known
affine map, or under the known warp of examples/registration, which FireANTs has to find.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import SimpleITK
import torch
from fireants.io.image import BatchedImages, Image
from fireants.registration.affine import AffineRegistration
from fireants.registration.greedy import GreedyRegistration
from torch import Tensor

from nec_ext._console import run_command

from ..common.commands import exit_code, make_parser
from ..common.nifti import read_pair
from ..common.tables import markdown
from ..common.versions import versions
from ..register_pair import positions
from ..registration.images import Problem, make_problem
from ..registration.warp import KnownWarp, inverse, target_registration_error, warp
from .with_fireants import NGF

SUBJECTS = ("01483", "01484", "01485")
# A registration by MI takes ten times as long.
SEARCHED = {"NGF": ("00000", "00002"), "CC": ("00000", "00002"), "MI": ("00000",)}
VOXEL = 2.0  # mm
LARGEST = 8.0  # mm, of the known warp
BRIGHT = 100.0  # of the images: beside those in [0, 1], the 1e-5 that CC adds is no small constant
SCALES, ITERATIONS = [4, 2, 1], [100, 50, 10]
TITLES = "mean, mm", "median, mm", "95 %, mm", "CPU, s"


@dataclass(frozen=True)
class Settings:
    """The settings that are searched for: the loss's own parameter and the optimization."""

    loss: str
    detail: float  # eta of NGF, the bins of MI, the width of CC's window in voxels
    rate: float  # of Adam
    smooth: tuple[float, float] | None = None  # sigmas of gradient and warp, of GreedyRegistration


# The best of results/fireants-search-*.md.
AFFINE = [Settings("NGF", 1.0, 3e-2), Settings("CC", 5, 3e-2), Settings("MI", 32, 1e-1)]
GREEDY = [
    Settings("NGF", 0.2, 0.5, (6.0, 0.5)),
    Settings("CC", 3, 0.5, (6.0, 0.5)),
    Settings("MI", 16, 0.5, (6.0, 2.0)),
]
# The search tries these, from the first value of each on.
DETAILS = {"NGF": (0.5, 0.2, 1.0, 2.0), "CC": (3, 5, 7), "MI": (16, 32)}
RATES = {"affine": (3e-2, 1e-2, 1e-1), "greedy": (0.5, 0.25, 0.1)}
SMOOTH = {"affine": (None,), "greedy": ((1.0, 0.5), (6.0, 0.5), (6.0, 2.0), (3.0, 3.0))}


def as_batch(image: Tensor, spacing: Sequence[float]) -> BatchedImages:
    """Make FireANTs' images of ``(1, 1, X, Y, Z)``; ITK has X first, its arrays have it last."""
    volume = SimpleITK.GetImageFromArray(image[0, 0].numpy().T)
    volume.SetSpacing([float(step) for step in spacing])
    return BatchedImages([Image(volume, device="cpu")])


def affine_problem(problem: Problem, seed: int) -> Problem:
    """Exchange the known warp for a random affine map of some 10 mm."""
    size = problem.fixed.shape[2:]
    random = torch.Generator().manual_seed(seed)
    matrix = 0.05 * torch.randn(3, 3, generator=random)
    shift = 4 * torch.randn(1, 3, 1, 1, 1, generator=random)
    truth = torch.einsum("ij,bjxyz->bixyz", matrix, positions(size, problem.spacing)) + shift
    known = KnownWarp(truth, inverse(truth, problem.spacing))
    moving = warp(problem.aligned, known.inverse, problem.spacing)
    return problem._replace(moving=moving, known=known)


def problems(folder: Path, subjects: Sequence[str]) -> Iterator[tuple[str, str, Problem]]:
    """Yield subject, transformation and problem."""
    for index, number in enumerate(subjects):
        name = f"BraTS-GLI-{number}-000"
        pair = (folder / name / f"{name}-{contrast}.nii.gz" for contrast in ("t1n", "t2w"))
        problem = make_problem(*read_pair(*pair), VOXEL, len(SCALES), LARGEST, seed=index)
        yield name, "affine", affine_problem(problem, index)
        yield name, "greedy", problem


def register(problem: Problem, settings: Settings) -> Tensor:
    """Register with FireANTs; return the displacement in mm, ``(1, 3, X, Y, Z)``."""
    fixed, moving = (
        as_batch(BRIGHT * image, problem.spacing) for image in (problem.fixed, problem.moving)
    )
    options: dict[str, Any] = {"loss_type": settings.loss.lower()}
    if settings.loss == "NGF":
        options = {"loss_type": "custom", "custom_loss": NGF(fixed, settings.detail)}
    elif settings.loss == "MI":
        options["loss_params"] = {"num_bins": int(settings.detail)}
    else:
        options["cc_kernel_size"] = int(settings.detail)
    kind = AffineRegistration
    if settings.smooth:
        kind = GreedyRegistration
        options["smooth_grad_sigma"], options["smooth_warp_sigma"] = settings.smooth
    registration = kind(
        SCALES,
        ITERATIONS,
        fixed,
        moving,
        optimizer_lr=settings.rate,
        tolerance=math.inf,  # all losses take all steps
        progress_bar=False,
        **options,
    )
    registration.optimize()
    with torch.no_grad():  # -1 to 1 between the outermost voxels, X first: (1, Z, Y, X, 3)
        coordinates = registration.get_warped_coordinates(fixed, moving)
    size = problem.fixed.shape[2:]
    half = [(n - 1) * step / 2 for n, step in zip(size, problem.spacing, strict=True)]
    places = coordinates.permute(0, 4, 3, 2, 1) * torch.tensor(half).view(1, 3, 1, 1, 1)
    return places - positions(size, problem.spacing)


def errors(problem: Problem, displacement: Tensor) -> tuple[float, float, float]:
    """Return the mean, the median and the 95th percentile of the error in the brain, in mm."""
    error = target_registration_error(displacement, problem.known.truth)[problem.brain]
    ordered = error.sort().values
    middle, high = (ordered[round(share * (len(ordered) - 1))].item() for share in (0.5, 0.95))
    return error.mean().item(), middle, high


def judge(problem: Problem, settings: Settings) -> tuple[float, float, float, float]:
    """Register, and return the errors and the seconds of the CPU."""
    start = time.process_time()
    displacement = register(problem, settings)
    seconds = time.process_time() - start
    return *errors(problem, displacement), seconds


def compare(folder: Path) -> list[tuple[object, ...]]:
    """Register the subjects of the results; return the rows of the table."""
    rows: list[tuple[object, ...]] = []
    for name, kind, problem in problems(folder, SUBJECTS):
        before = errors(problem, torch.zeros_like(problem.known.truth))
        rows.append((kind, name, "before", *(f"{error:.2f}" for error in before), ""))
        for settings in AFFINE if kind == "affine" else GREEDY:
            *after, seconds = judge(problem, settings)
            row = *(f"{error:.2f}" for error in after), f"{seconds:.0f}"
            rows.append((kind, name, settings.loss, *row))
            print(*rows[-1], flush=True)
    return sorted(rows, key=lambda row: row[0])


def search(folder: Path, loss: str) -> list[tuple[object, ...]]:
    """Search one parameter after the other on other subjects; return the rows of the table."""
    cases = [case[1:] for case in problems(folder, SEARCHED[loss])]
    rows: list[tuple[object, ...]] = []
    for kind in RATES:
        best = Settings(loss, DETAILS[loss][0], RATES[kind][0], SMOOTH[kind][0])
        means: dict[Settings, float] = {}
        for field, values in (
            ("smooth", SMOOTH[kind]),
            ("rate", RATES[kind]),
            ("detail", DETAILS[loss]),
        ):
            for candidate in (replace(best, **{field: value}) for value in values):
                if candidate not in means:
                    chosen = [problem for name, problem in cases if name == kind]
                    means[candidate] = statistics.mean(judge(p, candidate)[0] for p in chosen)
                    print(kind, loss, candidate, f"{means[candidate]:.2f} mm", flush=True)
            best = min(means, key=means.__getitem__)
        for settings, mean in means.items():
            row = kind, settings.smooth or "", settings.rate, settings.detail, f"{mean:.2f}"
            rows.append((*row, "best" if settings == best else ""))
    return rows


PAGE = """# FireANTs: T1 to T2 of one brain{title}

`python -m examples.hosts.fireants_brats {arguments}`, commit {commit}, torch {torch}, FireANTs
{fireants}, {threads} thread(s) of a CPU, voxels of {voxel:g} mm. Scales {scales}, iterations
{iterations}.

{table}

{text}

Data: RSNA-ASNR-MICCAI-BraTS-2021, doi 10.7937/jc8x-9874, CC BY 4.0; U. Baid et al.,
arXiv 2107.02314.
"""
RESULTS = """Error: the distance in mm between where the registration takes a voxel of the fixed T2
and where its anatomy is known to lie in the moving T1, over the brain. Affine:
AffineRegistration, after a random affine map; greedy: GreedyRegistration, after a smooth warp of at
most {largest:g} mm. What the T1 and the T2 of a subject lie apart without either counts as an error
of every loss. The settings of each loss are the best on other subjects: searches for
[NGF](fireants-search-ngf.md), [CC](fireants-search-cc.md) and [MI](fireants-search-mi.md)."""
SEARCH = """The mean error in mm, over other subjects than those of [the results](fireants.md):
{subjects}. The smoothing was searched first (sigmas of gradient and warp, in voxels), then the
rate, then the loss's own parameter: eta of NGF, the window of CC, the bins of MI."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if stopped."""
    parser = make_parser("hosts.fireants_brats", __doc__)
    add = parser.add_argument
    add("data", type=Path, help="folder of the subjects")
    add("--search", choices=list(DETAILS), help="search for the settings of this loss")
    add("--out", type=Path, default=Path("out/fireants"))
    options = parser.parse_args(arguments)

    def run() -> None:
        titles: tuple[str, ...]
        if options.search:
            titles = "", "smoothing", "rate", "parameter", "mean error, mm", ""
            rows = search(options.data, options.search)
            name = f"fireants-search-{options.search.lower()}"
            text = SEARCH.format(subjects=", ".join(SEARCHED[options.search]))
        else:
            titles = "", "subject", "loss", *TITLES
            rows, name = compare(options.data), "fireants"
            text = RESULTS.format(largest=LARGEST)
        options.out.mkdir(parents=True, exist_ok=True)
        page = PAGE.format(
            arguments=f"DATA --search {options.search}" if options.search else "DATA",
            commit=versions()["commit"],
            torch=torch.__version__,
            fireants=version("fireants"),
            threads=torch.get_num_threads(),
            voxel=VOXEL,
            scales=SCALES,
            iterations=ITERATIONS,
            title=f", settings of {options.search}" if options.search else "",
            table=markdown(titles, rows),
            text=text,
        )
        (options.out / f"{name}.md").write_text(page, "utf-8")

    return exit_code(run, "stopped")


if __name__ == "__main__":
    run_command(main)
