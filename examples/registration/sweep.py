# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Search for the settings of each loss, in the same way for all, on images kept for the search.

    python -m examples.registration.sweep --seed 1 --size 54 64 54 --voxel 3   # another phantom
    python -m examples.registration.sweep T1 T2 --seed 1                       # NIfTI files
    python -m examples.registration.sweep T1 T2 --choices         # the options of the NGF loss

The command registers with each setting and writes the mean target registration errors to sweep.md.
"""

from __future__ import annotations

import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace

from nec_ext._console import run_command

from ..common.tables import markdown
from .images import Problem
from .measure import before, run
from .options import SETTINGS, exit_code, make_parser, pair_name, problems
from .register import LOSSES, Settings
from .report import title, write

SMOOTHNESS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
DETAIL = {"ngf": (0.1, 0.25, 0.5, 1.0), "lncc": (3, 5), "mi": (16, 32)}
NAMES = {"ngf": "eta", "lncc": "window", "mi": "bins"}
LOSS_SETTINGS = {
    f"{LOSSES[loss]}, {NAMES[loss]} {detail:g}": Settings(loss, detail, 0.0)
    for loss, details in DETAIL.items()
    for detail in details
}
ETA = SETTINGS["ngf"].detail
NGF_SETTINGS = {
    **{f"eta {x:g}": Settings("ngf", x, 0.0) for x in (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20)},
    **{
        f"{name} {value}": Settings("ngf", ETA, 0.0, options={name: value})
        for name, values in {
            "eps_mode": ("additive", "quadrature", "augmented"),
            "form": ("squared", "absolute", "cross", "signed"),
            "operator": ("central", "forward", "sobel"),
        }.items()
        for value in values
    },
    "eps_mode augmented, form absolute": Settings(
        "ngf", ETA, 0.0, options={"eps_mode": "augmented", "form": "absolute"}
    ),
    "spacing left out": Settings("ngf", ETA, 0.0, options={"spacing": 1.0}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("registration.sweep", __doc__, "out/registration-sweep")
    parser.add_argument("--choices", action="store_true", help="try the options of the NGF loss")
    parser.add_argument("--only", nargs="+", metavar="LINE", help="of what is tried, by its name")
    options = parser.parse_args(words)

    def sweep() -> None:
        tried = NGF_SETTINGS if options.choices else LOSS_SETTINGS
        for name in options.only or ():
            if name not in tried:
                raise ValueError(f"--only takes one of {', '.join(tried)}; got {name}")
        tried = {name: tried[name] for name in options.only or tried}
        parts = [
            "# Mean target registration error in mm over the weight of the bending energy",
            title("registration.sweep", shlex.join(words)),
        ]
        if options.choices:
            parts.append(f"Rows that name no eta have eta {ETA:g}.")
        least: dict[str, list[float]] = {name: [] for name in tried}
        for t1, _, problem in problems(options):
            pair, lines = pair_name(t1.path), []
            for name, settings in tried.items():
                settings = replace(settings, steps=options.steps)
                errors = search(pair, problem, settings, options.levels)
                least[name].append(min(errors))
                lines.append([name, *(f"{error:.2f}" for error in errors)])
                print(*lines[-1], sep="  ", flush=True)
            start = before(pair, problem).accuracy.tre_mean
            parts.append(f"{pair}: {start:.2f} mm before.")
            parts.append(markdown(["", *(f"{weight:g}" for weight in SMOOTHNESS)], lines))
            means = [(name, f"{statistics.mean(errors):.2f}") for name, errors in least.items()]
            best = ["The best of each, in the mean of the pairs:", markdown(["", "mm"], means)]
            options.out.mkdir(parents=True, exist_ok=True)
            # After each pair, so that a later one that cannot be used loses nothing.
            write(options.out / "sweep.md", "\n\n".join([*parts, *best]) + "\n")

    return exit_code(sweep)


def search(pair: str, problem: Problem, settings: Settings, levels: int) -> list[float]:
    """Register with each weight of the bending energy, and return the errors."""
    results = (
        run(pair, problem, replace(settings, smoothness=weight), levels)[0] for weight in SMOOTHNESS
    )
    return [result.accuracy.tre_mean for result in results]


if __name__ == "__main__":
    run_command(main)
