# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The options that the commands of this package share: images, and settings of registrations."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from ..common import commands
from ..common.nifti import DataError, Volume, read_pair
from .images import Problem, make_problem, phantom_pair
from .register import Settings

# These settings are the best in results/phantom/sweep.md.
SETTINGS = {
    "ngf": Settings("ngf", detail=0.1, smoothness=0.1),
    "lncc": Settings("lncc", detail=3, smoothness=1.0),
    "mi": Settings("mi", detail=16, smoothness=1.0),
}


def make_parser(name: str, description: str | None, out: str) -> argparse.ArgumentParser:
    """Make a parser with the options of the images and of the optimization."""
    parser = commands.make_parser(name, description)
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="T1 T2", help="NIfTI files; none: the phantom")
    add("--out", type=Path, default=Path(out), help="output folder")
    add(
        "--displacement",
        type=positive,
        default=8.0,
        metavar="MM",
        help="length of the largest displacement",
    )
    add("--seed", type=count(0), default=0, help="seed of the known warp and the phantom")
    add(
        "--voxel",
        type=positive,
        nargs="+",
        default=[2.0],
        metavar="MM",
        help="voxel size of the registration, one or one per axis",
    )
    add("--levels", type=count(1), default=2, help="levels of the pyramid")
    add("--steps", type=count(1), default=50, help="steps of each level")
    size = 80, 96, 80
    add(
        "--size",
        type=count(8),
        nargs=3,
        default=size,
        metavar=("X", "Y", "Z"),
        help="voxels of the phantom",
    )
    return parser


def problems(options: argparse.Namespace) -> Iterator[tuple[Volume, Volume, Problem]]:
    """Yield T1, T2 and the registration of each pair; raise ValueError if one cannot be used."""
    files: list[Path] = options.files
    if len(files) % 2:
        raise DataError(f"each T1 needs a T2: got {len(files)} files")
    if len(options.voxel) not in (1, 3):
        raise DataError(f"--voxel takes one size or three, got {len(options.voxel)}")
    for path in files:  # a missing file is reported before the first registration
        if not path.is_file():
            raise DataError(f"{path} does not exist")
    names = [pair_name(path) for path in files[::2]]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"two pairs are called {name}: register them one at a time")
    for t1, t2 in _pairs(options):
        problem = make_problem(
            t1, t2, options.voxel, options.levels, options.displacement, options.seed
        )
        yield t1, t2, problem


def pair_name(t1: Path) -> str:
    """Return a file's name without its ending and its contrast."""
    return re.sub(r"([-_]t1\w*)?\.nii(\.gz)?$", "", t1.name)


def _pairs(options: argparse.Namespace) -> Iterator[tuple[Volume, Volume]]:
    if not options.files:
        yield phantom_pair(options.size, options.seed)
    for t1_path, t2_path in zip(options.files[::2], options.files[1::2], strict=True):
        yield read_pair(t1_path, t2_path)


def positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}")
    return value


def at_least_0(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text}")
    return value


def count(least: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from ``least``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text}")
        return int(text)

    return parse


def exit_code(command: Callable[[], None]) -> int:
    """Run a command; return 0, 1 with one sentence on an error, 130 if stopped."""
    # MONAI's losses index by lists, and torch warns of that.
    warnings.filterwarnings("ignore", "Using a non-tuple sequence", UserWarning)
    return commands.exit_code(command, "stopped")
