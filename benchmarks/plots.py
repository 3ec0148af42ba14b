# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The plots of a results file.

A call has the same colour in all plots. The colour-blind can tell the colours apart (Okabe and
Ito); in a grey print, markers and dashes tell the calls apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from .rows import (
    ITEM_SIZES,
    Results,
    Row,
    case,
    machine_name,
    percent,
    rows_of,
    saved,
    share,
    training_rows,
    voxels,
)

DPI = 150
WIDTH = 6.4  # inches
LABEL_GAP = 0.065  # between the names of lines, as a share of a plot's height
TICK_GAP = 0.06  # between the labels of ticks, as a share of a plot's width


class Style(NamedTuple):
    """The colour, the marker and the dashes of a call."""

    colour: str
    marker: str
    dashes: Any


STYLES = {
    "fused": Style("#0072B2", "o", "-"),
    "torch.compile": Style("#D55E00", "s", "--"),
    "eager": Style("#009E73", "^", "-."),
    "torch.add": Style("#555555", "D", ":"),
    "ideal": Style("#000000", "", (0, (1, 4))),
}
LOSSES = ("fused", "torch.compile", "eager")


class Point(NamedTuple):
    """A quantity at one size, with its quartiles."""

    x: float
    lower: float
    middle: float
    upper: float


Lines = dict[str, list[Point]]

# --- Lines ----------------------------------------------------------------------------------------


def lines(
    rows: Iterable[Row], x: Callable[[Row], float], y: Callable[[Row, str, float], float]
) -> Lines:
    """Turn the times of each call into the points of a line.

    Args:
        rows: the cases of a sweep.
        x: maps a row to its place on the horizontal axis.
        y: maps a row, a call and one of its times in milliseconds to the quantity that is drawn.
    """
    by_call: Lines = {}
    for row in sorted(rows, key=x):
        for call in STYLES:
            if call in row["ms"]:
                values = sorted(y(row, call, ms) for ms in row["ms"][call])
                by_call.setdefault(call, []).append(Point(x(row), *values))
    return by_call


def draw_lines(axes: Axes, by_call: Lines) -> bool:
    """Draw a line per call, if there are at least two sizes; return whether there are."""
    sizes = sorted({point.x for points in by_call.values() for point in points})
    if len(sizes) < 2:
        return False
    for call, points in by_call.items():
        style = STYLES[call]
        errors = [[p.middle - p.lower for p in points], [p.upper - p.middle for p in points]]
        axes.errorbar(
            [p.x for p in points],
            [p.middle for p in points],
            errors if any(map(any, errors)) else None,
            color=style.colour,
            marker=style.marker,
            linestyle=style.dashes,
            linewidth=2 if call == "fused" else 1.4,
            markersize=5,
            elinewidth=0.8,
            capsize=2,
            label=call,
        )
    axes.set_xticks(sizes, tick_labels(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", linewidth=0.4, alpha=0.5)
    return True


def draw_named_lines(axes: Axes, by_call: Lines) -> bool:
    """Draw lines with names at their ends, moved where names would cover each other."""
    if not draw_lines(axes, by_call):
        return False
    axes.autoscale_view()
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = sorted(
        ((points[-1], call) for call, points in by_call.items()), key=lambda e: e[0].middle
    )
    heights = [to_axes.transform((end.x, end.middle))[1] for end, _ in ends]
    floor = LABEL_GAP / 2
    for i, height in enumerate(heights):
        heights[i] = max(height, floor)
        floor = heights[i] + LABEL_GAP
    ceiling = 1.0
    for i, height in reversed([*enumerate(heights)]):
        heights[i] = min(height, ceiling)
        ceiling = heights[i] - LABEL_GAP
    for (end, call), height in zip(ends, heights, strict=True):
        axes.annotate(
            call,
            (end.x, height),
            xycoords=("data", "axes fraction"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=STYLES[call].colour,
        )
    return True


def tick_labels(sizes: Sequence[float]) -> list[str]:
    """Label the largest size, and all others for which a logarithmic axis has room."""
    room = (sizes[-1] / sizes[0]) ** TICK_GAP
    labels, last = [], float("inf")
    for size in reversed(sizes):
        fits = size * room <= last
        labels.append(f"{size:g}" if fits else "")
        last = size if fits else last
    return labels[::-1]


def logarithmic(axes: Axes, steps: Sequence[float] = (1, 2, 5)) -> None:
    """Make both axes logarithmic, with labels at these steps of each decade."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def edge(row: Row) -> float:
    return float(row["shape"][-1])


# --- Functions that fill the axes of a plot; they return False if there is too little to draw -----


def size(results: Results, axes: Axes) -> bool:
    by_call = lines(rows_of(results, "test_size"), edge, lambda row, _, ms: 1e6 * ms / voxels(row))
    logarithmic(axes)
    axes.set(xlabel="edge of the cube, voxels", ylabel="ns per voxel")
    return draw_named_lines(axes, by_call)


def bandwidth(results: Results, axes: Axes) -> bool:
    rows = [row for row in rows_of(results, "test_size") if "torch.add" in row["ms"]]
    by_call = lines(rows, edge, lambda row, _, ms: 100 * row["ms"]["torch.add"][1] / ms)
    axes.set_xscale("log")
    axes.set_ylim(
        0, 1.05 * max((p.upper for points in by_call.values() for p in points), default=1)
    )
    axes.set(xlabel="edge of the cube, voxels", ylabel="% of the rate of torch.add")
    return draw_named_lines(axes, by_call)


def memory(results: Results, axes: Axes) -> bool:
    by_call: Lines = {}
    for row in sorted(rows_of(results, "test_size"), key=edge):
        for call in LOSSES:
            if call in row.get("memory", ()):
                volumes = 2 + row["memory"][call]["peak"]
                gigabytes = volumes * voxels(row) * ITEM_SIZES[row["dtype"]] / 1e9
                by_call.setdefault(call, []).append(Point(edge(row), *[gigabytes] * 3))
    logarithmic(axes, (1,))
    axes.set(xlabel="edge of the cube, voxels", ylabel="GB, the two images included")
    largest = {}
    for row in rows_of(results, "test_fits"):
        largest = draw_budget(axes, by_call, row["fits"])
    drawn = draw_lines(axes, by_call)
    handles, calls = axes.get_legend_handles_labels()
    names = [f"{call}{largest.get(call, '')}" for call in calls]
    axes.legend(handles, names, reverse=True, frameon=False, loc="lower right")
    return drawn


def draw_budget(axes: Axes, by_call: Lines, fits: dict[str, Any]) -> dict[str, str]:
    """Draw a budget, and extend the lines up to the largest cubes that fit it.

    Returns:
        for each call, the words that the legend adds to its name.
    """
    budget = fits["budget_bytes"] / 1e9
    axes.axhline(budget, color="black", linestyle=(0, (6, 4)), linewidth=0.8)
    axes.annotate(
        f"{budget:g} GB",
        (0, budget),
        xycoords=("axes fraction", "data"),
        xytext=(4, 3),
        textcoords="offset points",
    )
    for call, points in by_call.items():
        if call in fits["edges"]:
            peak = fits["peak_bytes"][call] / 1e9
            points.append(Point(fits["edges"][call], peak, peak, peak))
            points.sort()
    return {call: f", up to edge {edge} in {budget:g} GB" for call, edge in fits["edges"].items()}


def batch(results: Results, axes: Axes) -> bool:
    clock = "done" if results["device"] == "cuda" else "device"
    rows = [row for row in rows_of(results, "test_batch") if row["clock"] == clock]
    logarithmic(axes)
    axes.set(xlabel="images of 256x256 in a batch", ylabel="us per call")
    by_call = lines(rows, lambda row: row["shape"][0], lambda row, _, ms: 1e3 * ms)
    return draw_named_lines(axes, by_call)


def threads(results: Results, axes: Axes) -> bool:
    rows = rows_of(results, "test_threads")
    alone = next((row["ms"] for row in rows if row["threads"] == 1), None)
    if alone is None:
        return False
    by_call = lines(rows, lambda row: row["threads"], lambda _, call, ms: alone[call][1] / ms)
    by_call["ideal"] = [Point(*[row["threads"]] * 4) for row in rows]
    logarithmic(axes, (1, 1.5, 2, 3, 5, 7))
    axes.set(xlabel="threads", ylabel="speed, as a multiple of that of one thread")
    return draw_named_lines(axes, by_call)


def training(results: Results, axes: Axes) -> bool:
    rows = [row for row in training_rows(results) if "eager" in row["ms"]]
    heights, names, height, longest = [], [], 0.0, 0.0
    for row in rows:
        axes.text(0, height, case(row), weight="bold", va="center")
        for call in (call for call in LOSSES if call in row["ms"]):
            height -= 1
            unit = row["ms"]["eager"][1] / 100
            lower, whole, upper = (ms / unit for ms in row["ms"][call])
            loss = row["loss_ms"][call][1] / unit
            colour = STYLES[call].colour
            axes.barh(height, loss, 0.8, color="white", edgecolor=colour, hatch="/////")
            axes.barh(height, whole - loss, 0.8, loss, color=colour, edgecolor=colour)
            axes.errorbar(
                whole,
                height,
                xerr=[[whole - lower], [upper - whole]],
                color="black",
                elinewidth=0.8,
                capsize=2,
            )
            note = saved(row, call)[1]
            text = f"{whole:.0f} %{note}; its loss {percent(share(row, call))}"
            axes.text(upper + 1, height, text, va="center", fontsize=9)
            longest = max(longest, upper)
            heights.append(height)
            names.append(call)
        height -= 1.4
    if not rows:
        return False
    axes.set_yticks(heights, names)
    axes.set_xticks(range(0, 101, 20))
    axes.set_ylim(height + 0.6, 0.8)
    axes.set(xlabel="time of a step, % of that with the eager loss", xlim=(0, 1.9 * longest))
    axes.legend(
        handles=[
            Patch(facecolor="white", edgecolor="grey", hatch="/////", label="loss and gradient"),
            Patch(color="grey", label="the rest of the step"),
        ],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
    )
    return True


class Plot(NamedTuple):
    """The title of a plot, and the function that fills its axes."""

    title: str
    fill: Callable[[Results, Axes], bool]
    height: float = 4.0  # inches


PLOTS = {
    "size": Plot("Time of the loss and its gradient, per voxel", size),
    "bandwidth": Plot("Rate of the loss and its gradient, relative to torch.add", bandwidth),
    "memory": Plot("Memory of the loss and its gradient", memory),
    "batch": Plot("Time of the loss and its gradient, small images", batch),
    "threads": Plot("Speed of the loss and its gradient over threads, 160x192x160", threads),
    "training": Plot("Time of training steps, by loss", training, height=4.8),
}


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw every plot for which there are results, and remove other plots of an earlier run.

    Returns:
        the titles of the plots, by the stems of their files.
    """
    drawn = {}
    for name, plot in PLOTS.items():
        figure = Figure(figsize=(WIDTH, plot.height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        if plot.fill(results, axes):
            figure.suptitle(
                f"{plot.title}\n{machine_name(results)}", x=0.01, ha="left", fontsize=10
            )
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f"{name}.png", dpi=DPI)
            drawn[name] = plot.title
    for path in folder.glob("*.png"):
        if path.stem not in drawn:
            path.unlink()
    return drawn
