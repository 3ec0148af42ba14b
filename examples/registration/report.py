# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The numbers as a JSON file and as a page."""

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
largest over the voxels of the brain. Shift: the length in mm of the mean error vector; what T1 and
T2 of a pair lie apart without a warp counts there for every loss, and in the TRE. Folded: voxels of
the brain whose Jacobian determinant is not positive. Time: of a whole registration by the clock,
which other work on the machine lengthens; CPU: of the processor. Step: one on the finest level, its
time of the processor (median), and what it holds at its worst moment beyond images, displacement
and optimizer."""


def write(path: Path, text: str) -> None:
    write_atomically(path, lambda file: file.write(text.encode()))


def write_numbers(path: Path, results: Sequence[Result], options: dict[str, Any]) -> None:
    """Write everything that was measured, and what it depends on."""
    facts = {
        "options": options,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "results": [asdict(result) for result in results],
    }
    write(path, json.dumps(facts, indent=2, default=lambda path: path.name) + "\n")


def title(module: str, words: str) -> str:
    """Name the command that makes a file, and on what it ran."""
    words = re.sub(r"\S*/", "", words)  # folders are the user's own
    command = f"python -m examples.{module} {words}".strip()
    facts = versions()
    return (
        f"`{command}`, commit {facts['commit']}, torch {torch.__version__}, "
        f"monai {monai.__version__}, {torch.get_num_threads()} threads."
    )


def page(module: str, words: str, results: Sequence[Result]) -> str:
    """Write all of it, with a figure of each pair."""
    pairs = list(dict.fromkeys(result.pair for result in results))
    figures = [f"![{pair}]({pair}/registration.png)" for pair in pairs]
    parts = ["# T1 to T2 after a known warp", title(module, words), table(results)]
    if len(pairs) > 1:
        parts.append(means(results))
    return "\n\n".join([*parts, LEGEND, *figures]) + "\n"


def table(results: Sequence[Result]) -> str:
    """Write a line per registration."""
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
    found = {
        method: statistics.mean(r.accuracy.tre_mean for r in results if r.method == method)
        for method in methods
    }
    return "Mean over the pairs: " + ", ".join(f"{m} {x:.2f} mm" for m, x in found.items()) + "."
