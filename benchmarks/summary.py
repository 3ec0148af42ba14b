# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The short form of results for a README: a table of a few rows, and a bar chart."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.common.tables import markdown

from .plots import DPI, STYLES
from .rows import (
    Results,
    Row,
    case,
    duration,
    fastest,
    load,
    machine_name,
    median,
    percent,
    ratio,
    rows_of,
    share,
    training_rows,
    versions,
)
from .sections import NEGLIGIBLE

CASES = ("3D 160x192x160", "3D 256x256x256")  # the chart shows the largest
IMAGE = "2D 1 x 256x256"  # where the loss is fast whichever way it is computed
# The calls that are shown, and their names for a reader who has not seen the benchmarks.
NAMES = {
    "eager": "eager PyTorch",
    "torch.compile": "torch.compile",
    "fused": "nec_ext",
    "torch.add": "torch.add",
}
WIDTH, HEIGHT = 8.0, 1.9  # inches


def summary(paths: Sequence[Path], root: Path) -> str:
    """Return the short form of some results files, and draw its chart beside the first file.

    Args:
        paths: the files; their pages have been written.
        root: the folder that links start from.
    """

    def link(path: Path) -> str:
        return Path(os.path.relpath(path, root)).as_posix()

    machines = [load(path) for path in paths]
    shown = [
        (machine_name(results), row)
        for results in machines
        for row in rows_of(results, "test_step")
        if case(row) in CASES
    ]
    if not shown:
        raise SystemExit(f"None of the results has {' or '.join(CASES)}.")
    chart = paths[0].with_name("summary.png")
    _draw(shown, chart)
    sources = (
        f"[{machine_name(results)}]({link(path.with_suffix('.md'))}), {versions(results)}"
        for results, path in zip(machines, paths, strict=True)
    )
    steps = (
        f"{text} ({machine_name(results)})" for results in machines if (text := _steps(results))
    )
    parts = [
        _headline(machines),
        _table(shown),
        f"![Time and memory of the loss and its gradient]({link(chart)})",
        f"*Does it matter?* {' '.join(steps)}",
        f"Medians, from {'; '.join(sources)}.",
    ]
    return "\n\n".join(parts)


def _headline(machines: Sequence[Results]) -> str:
    steps = [row for results in machines for row in rows_of(results, "test_step")]

    volumes = [row for row in steps if re.fullmatch(r"3D [0-9x]+", case(row))]  # of float32
    images = [row for row in steps if case(row) == IMAGE]

    def times(call: str, rows: Sequence[Row]) -> str:
        ratios = sorted(ratio(row, fastest(row, call)) for row in rows)
        return " to ".join(dict.fromkeys(f"{one:.0f}" for one in (ratios[0], ratios[-1])))

    edges = sorted(row["shape"][-1] for row in volumes)
    where = "" if any("gpu" in results for results in machines) else " on a CPU"
    image = ""
    if images:
        small = (times(call, images) for call in ("eager", "torch.compile"))
        image = f"; one 2D image of 256x256: {' and '.join(small)} times"
    return (
        f"**In 3D{where}, {times('eager', volumes)} times faster than eager PyTorch and "
        f"{times('torch.compile', volumes)} times faster than `torch.compile`** "
        f"(loss and gradient, float32, from {edges[0]}^3 to {edges[-1]}^3 voxels{image}):"
    )


def _time(row: Row, call: str) -> float:
    return median(row, fastest(row, call))


def _volumes(row: Row, call: str) -> float:
    return float(row["memory"][fastest(row, call)]["peak"])


def _table(shown: Sequence[tuple[str, Row]]) -> str:
    def cells(of: Callable[[str], str]) -> list[str]:
        return [f"**{of(call)}**" if call == "fused" else of(call) for call in NAMES]

    def memory(call: str) -> str:
        volumes = [_volumes(row, call) for _, row in shown if call in row["memory"]]
        return f"{max(volumes):.2g}" if volumes else "-"

    times = [
        [case(row), machine, *cells(lambda call, row=row: duration(_time(row, call)))]
        for machine, row in shown
    ]
    titles = ["", "", *cells(lambda call: NAMES[call])]
    return markdown(titles, [*times, ["memory", "volumes beside the images", *cells(memory)]])


def _steps(results: Results) -> str:
    """Say for which training steps the choice of the loss matters."""
    rows = [row for row in training_rows(results) if "eager" in row["ms"]]
    little = [case(row) for row in rows if share(row, "eager") < NEGLIGIBLE]
    sentences = [
        f"The eager loss takes {percent(share(row, 'eager'))} of a step of {case(row)}, "
        f"{_size(row)}, and the fused loss {percent(share(row, 'fused'))}."
        for row in rows
        if case(row) not in little
    ]
    if little:
        sentences.append(
            f"The eager loss takes less than {percent(NEGLIGIBLE)} of a training step with these "
            f"networks, where the choice of the loss hardly changes the time: {', '.join(little)}."
        )
    return " ".join(sentences)


def _size(row: Row) -> str:
    return "x".join(str(edge) for edge in row["shape"][2:]) + " voxels"


def _draw(shown: Sequence[tuple[str, Row]], path: Path) -> None:
    """Draw the times of the largest case on each machine, and the memory."""
    largest = {machine: row for machine, row in shown if case(row) == case(shown[-1][1])}
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    *timings, memory = figure.subplots(1, len(largest) + 1)
    calls = [call for call in NAMES if call != "torch.add"]
    for axes, (machine, row) in zip(timings, largest.items(), strict=True):
        _bars(axes, {call: _time(row, call) for call in calls}, duration)
        axes.set_title(f"Time, {case(row)}\n{machine}", fontsize=10, loc="left")
    volumes = {call: _volumes(shown[-1][1], call) for call in calls}
    _bars(memory, volumes, lambda value: f"{value:.2g}")
    memory.set_title("Memory beside the images,\nin volumes of their size", fontsize=10, loc="left")
    for axes in (*timings[1:], memory):
        axes.tick_params(labelleft=False)
    figure.savefig(path, dpi=DPI)


def _bars(axes: Axes, values: dict[str, float], text: Callable[[float], str]) -> None:
    longest = max(values.values())
    for place, (call, value) in enumerate(values.items()):
        axes.barh(-place, value, 0.7, color=STYLES[call].colour)
        axes.text(value + 0.02 * longest, -place, text(value), va="center", fontsize=9)
    axes.set_yticks([-place for place in range(len(values))], [NAMES[call] for call in values])
    axes.set(xlim=(0, 1.4 * longest), xticks=[])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
