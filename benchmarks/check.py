# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Compare two results files: ``python -m benchmarks.check OLD.json NEW.json``.

The command prints where the fused loss became slower or needs more memory, and then exits with 1.
It judges times as ratios to the other calls of the same run, which met the same machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .console import run_command
from .rows import Results, Row, digits, load, percent, ratio, spread

TOLERANCE = 0.1  # relative
LITTLE = 0.01  # volumes; smaller increases, as by partial sums of a tiny image, are ignored


class Worse(NamedTuple):
    """A figure that has become worse."""

    row: str
    figure: str
    old: float
    new: float
    spread: float | None = None  # the largest of the times that are compared

    def cells(self) -> list[str]:
        change = percent(self.new / self.old - 1) if self.old else ""
        noise = "" if self.spread is None else percent(self.spread)
        return [self.row, self.figure, digits(self.old), digits(self.new), change, noise]


def compare(old: Row, new: Row) -> Iterator[Worse]:
    """Find the figures of a row that have become worse."""
    for call in calls(old) & calls(new):
        before, after = ratio(old, call), ratio(new, call)
        if after < (1 - TOLERANCE) * before:
            noise = max(spread(row, timed) for row in (old, new) for timed in ("fused", call))
            yield Worse(new["name"], f"{call} / fused", before, after, noise)
    before_all, after_all = (row.get("memory", {}).get("fused", {}) for row in (old, new))
    for kind in before_all.keys() & after_all.keys():
        before, after = before_all[kind], after_all[kind]
        if after > (1 + TOLERANCE) * before and after > before + LITTLE:
            yield Worse(new["name"], f"{kind} memory, volumes", before, after)


def calls(row: Row) -> set[str]:
    """Return the names of the calls that the fused loss is compared with."""
    return set(row.get("ms", ())) - {"fused"}


def summary(old: Results, new: Results) -> str:
    """Say how many rows were compared, and what speaks against the comparison."""
    rows = [{row["name"]: calls(row) for row in results["rows"]} for results in (old, new)]
    first, second = rows
    shared = first.keys() & second.keys()
    unmatched = sorted(first.keys() ^ second.keys())
    unmatched += [
        f"{call} of {name}"
        for name in sorted(shared)
        for call in sorted(first[name] ^ second[name])
    ]
    parts = [f"{len(shared)} rows compared"]
    if unmatched:
        parts.append(f"in one file only: {', '.join(unmatched)}")
    settings = (circumstances(old), circumstances(new))
    different = [
        f"{name} {settings[0].get(name)} and {settings[1].get(name)}"
        for name in settings[0] | settings[1]
        if settings[0].get(name) != settings[1].get(name)
    ]
    if different:
        parts.append(f"WARNING, measured with different {'; '.join(different)}")
    return f"{'; '.join(parts)}."


def circumstances(results: Results) -> dict[str, Any]:
    """Return the settings besides the code on which ratios may depend."""
    settings = {"machine": results.get("gpu", results["cpu"]), **results["packages"]}
    return settings | {name: results.get(name) for name in ("threads", "python", "torch_cuda")}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    arguments = parser.parse_args()
    old, new = load(arguments.old), load(arguments.new)
    before = {row["name"]: row for row in old["rows"]}
    worse = [
        figure
        for row in new["rows"]
        if row["name"] in before
        for figure in sorted(compare(before[row["name"]], row))
    ]
    if worse:
        head = ["row", "worse by more than 10 %", "old", "new", "change", "spread"]
        print(aligned([head, *(figure.cells() for figure in worse)]))
    print(summary(old, new))
    return int(bool(worse))


if __name__ == "__main__":
    run_command(main)
