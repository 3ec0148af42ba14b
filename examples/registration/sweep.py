# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Search for the settings of each loss, in the same way for all, on images kept for the search.

    python -m examples.registration.sweep --seed 1 --size 54 64 54 --voxel 3   # another phantom
    python -m examples.registration.sweep T1 T2 --seed 1                       # NIfTI files

The command registers with each setting and writes the mean target registration errors to sweep.md.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from nec_ext._console import run_command

from ..common.tables import markdown
from .images import Problem
from .measure import before, run
from .options import exit_code, make_parser, pair_name, problems
from .register import LOSSES, Settings
from .report import title, write

SMOOTHNESS = (0.03, 0.1, 0.3, 1.0, 3.0)
DETAIL = {"ngf": (0.25, 0.5, 1.0), "lncc": (3, 5), "mi": (16, 32)}
NAMES = {"ngf": "eta", "lncc": "window", "mi": "bins"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("registration.sweep", __doc__, "out/registration-sweep")
    options = parser.parse_args(words)

    def sweep() -> None:
        parts = [
            "# Mean target registration error in mm over the weight of the bending energy",
            title("registration.sweep", shlex.join(words)),
        ]
        for t1, _, problem in problems(options):
            parts += table(pair_name(t1.path), problem, options.steps, options.levels)
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out / "sweep.md", "\n\n".join(parts) + "\n")

    return exit_code(sweep)


def table(pair: str, problem: Problem, steps: int, levels: int) -> tuple[str, str]:
    """Return a sentence, and a table with a line for each loss and detail."""
    lines = []
    for loss, details in DETAIL.items():
        for detail in details:
            cells = [f"{LOSSES[loss]}, {NAMES[loss]} {detail:g}"]
            for weight in SMOOTHNESS:
                settings = Settings(loss, detail, weight, steps=steps)
                result, _ = run(pair, problem, settings, levels)
                cells.append(f"{result.accuracy.tre_mean:.2f}")
            lines.append(cells)
            print(*cells, sep="  ", flush=True)
    start = before(pair, problem).accuracy.tre_mean
    titles = ["", *(f"{weight:g}" for weight in SMOOTHNESS)]
    return f"{pair}: {start:.2f} mm before.", markdown(titles, lines)


if __name__ == "__main__":
    run_command(main)
