# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The tables of a results file, section by section."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from examples.common.tables import markdown

from .rows import (
    NOISY,
    Results,
    Row,
    case,
    digits,
    machine_name,
    mark,
    median,
    percent,
    rate,
    ratio,
    rows_of,
    saved,
    share,
    spread,
    training_rows,
    versions,
    voxels,
)

NEGLIGIBLE = 0.02  # a loss with a smaller share of a training step hardly matters

Column = tuple[str, Callable[[Row], str]]  # its head, and a function from a row to its cell


class Section(NamedTuple):
    """A part of a page; plots are shown below its text."""

    title: str
    paragraphs: list[str]
    plots: tuple[str, ...] = ()


# --- Tables ---------------------------------------------------------------------------------------


def table(rows: Sequence[Row], *columns: Column) -> str:
    """Return a table without its empty columns, or an empty text if no column is left."""
    filled = [(head, [cell(row) for row in rows]) for head, cell in columns]
    filled = [(head, cells) for head, cells in filled if any(cells)]
    if not filled:
        return ""
    titles, columns_of_cells = zip(*filled, strict=True)
    return markdown(titles, zip(*columns_of_cells, strict=True))


PER_VOXEL: Column = (
    "ns per voxel",
    lambda row: digits(1e6 * median(row, "fused") / voxels(row)) + mark(row, "fused"),
)


def in_code(call: str) -> str:
    """Mark the names of functions within the name of a call as code."""
    return re.sub(r"torch\.\w+|l1_loss", r"`\g<0>`", call)


def time_column(results: Results) -> Column:
    unit, factor = ("us", 1e3) if results["device"] == "cuda" else ("ms", 1)
    return unit, lambda row: digits(factor * median(row, "fused")) + mark(row, "fused")


def ratio_column(call: str) -> Column:
    def cell(row: Row) -> str:
        return digits(ratio(row, call)) + mark(row, call) if call in row["ms"] else ""

    return in_code(call), cell


def ratio_columns(rows: Sequence[Row], besides: str = "fused") -> list[Column]:
    """Make a column for each other call, in the order in which the rows name them."""
    calls = dict.fromkeys(call for row in rows for call in row["ms"])
    return [ratio_column(call) for call in calls if call not in ("fused", besides)]


def memory_column(call: str, kind: str, head: str) -> Column:
    def cell(row: Row) -> str:
        volumes = row.get("memory", {}).get(call, {}).get(kind)
        return "" if volumes is None else f"{volumes:.2f}"

    return head, cell


def memory_columns(rows: Sequence[Row], *kinds: str) -> list[Column]:
    calls = dict.fromkeys(call for row in rows for call in row.get("memory", ()))
    return [
        memory_column(call, kind, f"{in_code(call)}: {kind}") for call in calls for kind in kinds
    ]


def rate_columns(results: Results, volumes: int) -> list[Column]:
    """Make, on a GPU, columns of GB/s and of their share of torch.add's at the same size."""
    if results["device"] != "cuda":
        return []
    adds = {case(row): row for row in rows_of(results, "test_step") if "torch.add" in row["ms"]}

    def of_add(row: Row) -> str:
        add = row if "torch.add" in row["ms"] else adds.get(case(row))
        return percent(rate(row, "fused", volumes) / rate(add, "torch.add", 3)) if add else ""

    return [
        ("GB/s", lambda row: digits(rate(row, "fused", volumes))),
        ("share of `torch.add`'s", of_add),
    ]


def time_columns(results: Results, rows: Sequence[Row], volumes: int) -> list[Column]:
    return [
        time_column(results),
        PER_VOXEL,
        *rate_columns(results, volumes),
        *ratio_columns(rows),
    ]


# --- Sections -------------------------------------------------------------------------------------


def goals(results: Results) -> Section:
    rows = [
        {"case": row["name"].removeprefix("test_"), **goal}
        for row in results["rows"]
        for goal in row["goals"]
    ]
    reached = sum(goal["reached"] for goal in rows)
    listed = table(
        rows,
        ("case", lambda goal: goal["case"]),
        ("goal", lambda goal: f"{goal['name']} {goal['goal']}"),
        ("measured", lambda goal: f"{goal['measured']:.3g}"),
        ("", lambda goal: "reached" if goal["reached"] else "**missed**"),
    )
    return Section("Goals", [f"{reached} of {len(rows)} are reached.", listed] if rows else [])


def step(results: Results) -> Section:
    rows = rows_of(results, "test_step")
    checked = dict.fromkeys(call for row in rows for call in row.get("errors", ()))
    times = table(rows, ("loss and gradient", case), *time_columns(results, rows, 3))
    memory = table(rows, ("memory, volumes", case), *memory_columns(rows, "peak", "saved"))
    errors = table(
        rows,
        ("relative errors of loss, gradient", case),
        *((in_code(call), lambda row, call=call: _errors(row, call)) for call in checked),
    )
    kernels = table(
        [row for row in rows if "kernels" in row],
        ("kernels of a call", case),
        ("", lambda row: ", ".join(f"`{name}`" for name in row["kernels"])),
    )
    return Section("A training step's loss and gradient", [times, memory, errors, kernels])


def _errors(row: Row, call: str) -> str:
    return ", ".join(f"{error:.0e}" for error in row.get("errors", {}).get(call, {}).values())


def forward(results: Results) -> Section:
    rows = rows_of(results, "test_forward")
    times = time_columns(results, rows, 2)
    return Section(
        "The loss alone", [table(rows, ("loss alone", case), *times, *memory_columns(rows, "peak"))]
    )


def size(results: Results) -> Section:
    rows = rows_of(results, "test_size")
    times = time_columns(results, rows, 3)
    listed = table(rows, ("edge", case), *times, *memory_columns(rows, "peak"))
    return Section("Cubes", [listed], ("size", "bandwidth", "memory"))


def fits(results: Results) -> Section:
    paragraphs = []
    for row in rows_of(results, "test_fits"):
        edges = row["fits"]["edges"]
        largest = [
            {
                "call": call,
                "edge": str(edge),
                "peak": digits(row["fits"]["peak_bytes"][call] / 1e9),
                "voxels": digits((edges["fused"] / edge) ** 3),
            }
            for call, edge in edges.items()
        ]
        columns = {
            "call": "",
            "edge": "edge",
            "peak": "peak, GB",
            "voxels": "voxels of the fused loss's cube / its voxels",
        }
        paragraphs += [
            "These are the largest cubes whose loss and gradient fit "
            f"{row['fits']['budget_bytes'] / 1e9:g} GB, the two images included.",
            table(largest, *((head, lambda row, k=k: row[k]) for k, head in columns.items())),
        ]
    return Section("The largest cube", paragraphs)


def batch(results: Results) -> Section:
    rows = rows_of(results, "test_batch")
    gpu = results["device"] == "cuda"
    listed = table(
        rows,
        ("256x256 images", case),
        ("clock", lambda row: row["clock"] if gpu else ""),
        time_column(results),
        ("us per image", lambda row: digits(1e3 * median(row, "fused") / row["shape"][0])),
        *ratio_columns(rows),
    )
    clocks = (
        "`device` is the GPU's own time, `done` runs from the call until an idle GPU has done the "
        "work, and `host` runs until the call returns."
    )
    return Section("Small images", [clocks if gpu and rows else "", listed], ("batch",))


def threads(results: Results) -> Section:
    rows = rows_of(results, "test_threads")
    listed = table(rows, ("threads", case), *time_columns(results, rows, 3))
    return Section("Threads", [listed], ("threads",))


def options(results: Results) -> Section:
    rows = rows_of(results, "test_options")
    plain = "fused, plain"

    def to_plain(row: Row) -> str:
        return digits(1 / ratio(row, plain)) + mark(row, plain) if plain in row["ms"] else ""

    listed = table(
        rows,
        ("loss and gradient with", case),
        time_column(results),
        PER_VOXEL,
        ("multiple of the plain fused loss", to_plain),
        *ratio_columns(rows, besides=plain),
    )
    return Section("Options", [listed])


def training(results: Results) -> Section:
    rows = training_rows(results)

    def saved_time(row: Row) -> str:
        call = row["call"]
        if call == "eager" or "eager" not in row["ms"]:
            return ""
        part, note = saved(row, call)
        return percent(part) + note

    def spread_of(row: Row) -> str:
        noise = spread(row, row["call"])
        return f"**{percent(noise)}**" if noise > NOISY else percent(noise)

    def peak(row: Row) -> str:
        peak_bytes = row.get("peak_bytes", {}).get(row["call"])
        return (
            "" if peak_bytes is None else digits((peak_bytes + row.get("lasting_bytes", 0)) / 1e9)
        )

    listed = table(
        [{**row, "call": call} for row in rows for call in row["ms"]],
        ("training step", case),
        ("loss", lambda row: row["call"]),
        ("ms per step", lambda row: digits(median(row, row["call"]))),
        ("spread", spread_of),
        ("the loss's share", lambda row: percent(share(row, row["call"]))),
        ("time saved, of the step with eager", saved_time),
        ("GB at the worst moment", peak),
    )
    what = "\n".join(f"* {case(row)}: {row['what']} {largest(row)}".rstrip() for row in rows)
    return Section("Training", [what, listed, shares(rows)], ("training",))


def largest(row: Row) -> str:
    """Say which patches are the largest that fit a budget, if the row has them."""
    if "largest" not in row:
        return ""
    edges = ", ".join(f"{call} {edge}" for call, edge in row["largest"].items())
    return f"The largest edge within {row['budget_bytes'] / 1e9:g} GB: {edges}."


def shares(rows: Sequence[Row]) -> str:
    """Say for which training steps the choice of the loss matters."""
    pairs = [(share(row, "eager"), case(row)) for row in rows if "eager" in row["ms"]]

    def listed(parts: list[tuple[float, str]]) -> str:
        return ", ".join(f"{percent(part)} of a step in {name}" for part, name in parts)

    little = [pair for pair in pairs if pair[0] < NEGLIGIBLE]
    much = [pair for pair in pairs if pair[0] >= NEGLIGIBLE]
    sentences = []
    if little:
        sentences.append(
            f"The eager loss takes {listed(little)}: there, below {percent(NEGLIGIBLE)}, the "
            "choice of the loss hardly changes the time of training."
        )
    if much:
        sentences.append(f"The eager loss takes {listed(much)}.")
    return " ".join(sentences)


def head(results: Results) -> str:
    """Describe the machine, and say what the numbers mean."""
    spreads = [spread(row, call) for row in results["rows"] for call in row.get("ms", ())]
    noisy = sum(s > NOISY for s in spreads)
    settings = "; ".join(f"{name} {value}" for name, value in results.get("nvidia_smi", {}).items())
    paragraphs = [
        f"# {machine_name(results)}",
        f"{versions(results)}; {results['cpu']}, {results['cores']} cores, {results['threads']} "
        f"threads, {results['system']}, Python {results['python']}.",
        f"{settings}." if settings else "",
        "Times are medians; the times of the other calls are multiples of the fused loss's. "
        "Memory is in volumes above the two images: at the worst moment (peak), and kept from "
        "forward to backward (saved). The spread of a time is half the interquartile range "
        f"relative to the median: {noisy} of {len(spreads)} times have one above {percent(NOISY)}, "
        "and show it after a ±.",
    ]
    return "\n\n".join(filter(None, paragraphs))


def sections(results: Results) -> list[Section]:
    """Return the sections that have content."""
    every = (step, forward, size, fits, batch, threads, options, training, goals)
    filled = [section(results) for section in every]
    filled = [s._replace(paragraphs=[text for text in s.paragraphs if text]) for s in filled]
    return [section for section in filled if section.paragraphs]
