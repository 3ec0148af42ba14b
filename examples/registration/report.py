# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The numbers of registrations, as a JSON file and as a page."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import monai
import torch

from ..common.files import write_atomically
from ..common.tables import markdown
from ..common.versions import versions
from .measure import Result

LEGEND = """\
TRE: target registration error, the distance in mm between where the registration takes a voxel of
the fixed T2 and where its anatomy is known to lie in the moving T1: mean, 95th percentile and
largest over the voxels of the brain. Shift: the length in mm of the mean error vector. If T1 and T2
of a pair are shifted already without a warp, this counts as an error of every loss, in shift and
TRE. Folded: voxels of the brain whose Jacobian determinant is not positive. Time: the duration of a
whole registration, which other work on the machine lengthens. CPU: its processor time. Step: the
processor time of a step on the finest level (median), and its peak of memory beside images,
displacement and optimizer.

In the figures, columns show the pair before, and after registration with each loss, with the mean
TRE over the brain. Rows show the moved T1 in grey under contours of the fixed T2, around the brain
and around fluid; the blue box, enlarged; and the TRE of this slice."""


def write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_numbers(path: Path, results: Sequence[Result], options: dict[str, Any]) -> None:
    """Write all measurements, with the options and versions on which they depend."""
    facts = {
        "options": options,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "results": [asdict(result) for result in results],
    }
    write(path, json.dumps(facts, indent=2, default=lambda path: path.name) + "\n")


def title(module: str, words: str) -> str:
    """Name the command that made a page, and the versions with which it ran."""
    words = re.sub(r"\S*/", "", words)  # the user's folders do not belong on the page
    command = f"python -m examples.{module} {words}".strip()
    facts = versions()
    return (
        f"`{command}`, commit {facts['commit']}, torch {torch.__version__}, "
        f"monai {monai.__version__}, {torch.get_num_threads()} threads."
    )


def page(module: str, words: str, results: Sequence[Result]) -> str:
    """Return the whole page, with a figure of each pair."""
    pairs = list(dict.fromkeys(result.pair for result in results))
    figures = [f"![{pair}]({pair}/registration.png)" for pair in pairs]
    parts = ["# T1 to T2 after a known warp", title(module, words), table(results)]
    if len(pairs) > 1:
        parts.append(means(results))
    return "\n\n".join([*parts, LEGEND, *figures]) + "\n"


def table(results: Sequence[Result]) -> str:
    """Format a table with a line for each registration."""
    titles = [
        *("pair", "loss", "TRE, mm", "95 %", "worst", "shift", "folded"),
        *("time, s", "CPU, s", "step, ms", "step, MB"),
    ]

    def cells(result: Result) -> list[str]:
        a, costs = result.accuracy, [""] * 4
        if result.settings:
            costs = [f"{result.seconds:.1f}", f"{result.cpu_seconds:.1f}"]
            costs += [f"{1e3 * result.step_cpu_seconds:.0f}", f"{result.step_bytes / 1e6:.0f}"]
        errors = (f"{mm:.2f}" for mm in (a.tre_mean, a.tre_95, a.tre_max, a.shift))
        return [result.pair, result.method, *errors, f"{100 * a.folded:.2g} %", *costs]

    return markdown(titles, map(cells, results))


def means(results: Sequence[Result]) -> str:
    """Average the TRE of each method over the pairs."""
    methods = list(dict.fromkeys(result.method for result in results))
    errors = {
        method: statistics.mean(r.accuracy.tre_mean for r in results if r.method == method)
        for method in methods
    }
    return "Mean over the pairs: " + ", ".join(f"{m} {x:.2f} mm" for m, x in errors.items()) + "."
