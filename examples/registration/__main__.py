# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register a T1 to the T2 of the same brain after a known warp, by three losses.

    python -m examples.registration                        # a brain phantom
    python -m examples.registration t1n.nii.gz t2w.nii.gz  # an aligned, skull-stripped pair

More pairs may follow. The output folder gets a page of all numbers, results.md, and the same
numbers in results.json. Each pair gets a figure and the moving image there, and for each loss the
displacement and the warped image.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace

from nec_ext._console import run_command

from .figure import draw
from .images import save_moving, save_result
from .measure import before, run
from .options import SETTINGS, at_least_0, exit_code, make_parser, pair_name, problems
from .register import BACKENDS
from .report import page, write, write_numbers


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 with one sentence on an error, 130 if stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = make_parser("registration", __doc__, "out/registration")
    add = parser.add_argument
    add("--loss", choices=[*SETTINGS, "all"], default="all")
    add("--loss-backend", choices=list(BACKENDS), default="fused", help="of the NGF loss")
    add("--smoothness", type=at_least_0, help="weight of the bending energy; default: the loss's")
    options = parser.parse_args(words)

    chosen = []
    for loss, settings in SETTINGS.items():
        if options.loss in (loss, "all"):
            weight = settings.smoothness if options.smoothness is None else options.smoothness
            chosen.append(
                replace(
                    settings, smoothness=weight, backend=options.loss_backend, steps=options.steps
                )
            )

    def compare() -> None:
        results = []
        for t1, t2, problem in problems(options):
            pair = pair_name(t1.path)
            folder = options.out / pair
            folder.mkdir(parents=True, exist_ok=True)
            save_moving(folder / "moving.nii.gz", problem, t1)
            results.append(before(pair, problem))
            print(f"{pair}: TRE {results[-1].accuracy.tre_mean:.2f} mm before", flush=True)
            displacements = {}
            for settings in chosen:
                result, displacement = run(pair, problem, settings, options.levels)
                print(
                    f"{result.method}: TRE {result.accuracy.tre_mean:.2f} mm, "
                    f"{result.seconds:.1f} s, {1e3 * result.step_cpu_seconds:.0f} ms of CPU and "
                    f"{result.step_bytes / 1e6:.0f} MB a step",
                    flush=True,
                )
                results.append(result)
                displacements[result.method] = displacement
                save_result(folder, settings.loss, displacement, problem, t2)
            draw(folder / "registration.png", problem, displacements)
            # After each pair, so that a later one that cannot be used loses nothing.
            write(options.out / "results.md", page("registration", shlex.join(words), results))
            write_numbers(options.out / "results.json", results, vars(options))
        print(f"{options.out / 'results.md'}")

    return exit_code(compare)


if __name__ == "__main__":
    run_command(main)
