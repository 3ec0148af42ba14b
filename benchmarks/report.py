# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Writes the tables of README.md: ``python -m benchmarks.report RESULTS.json README.md``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"


def markdown(head: str, rows: Iterable[Sequence[str]]) -> str:
    """A table; its head is written as it is to appear, with bars between the columns."""
    lines = [f"| {head} |", "|---" * (head.count("|") + 1) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in rows)])


# --- CPU: what `make bench` writes ----------------------------------------------------------------


def table(results: dict[str, Any], source: str) -> str:
    """The results as Markdown."""
    build = results["build"]
    parts = [
        f"{results['cpu']}, {results['threads']} threads, {build['cpu_capability']}, "
        f"torch {build['torch']}, float32, central differences. Times of the others as multiples "
        "of the fused loss; memory in volumes above the two images. "
        f"From `{source}`, written by `make bench`.",
        markdown(
            "loss and gradient | ns per voxel | `torch.compile` | eager | `torch.add` "
            "| peak memory | eager's",
            _rows(
                results, "test_loss_and_gradient", ("compiled", "eager", "move"), ("fused", "eager")
            ),
        ),
        markdown(
            "loss alone | ns per voxel | `torch.compile` | two `torch.sum` | peak memory",
            _rows(results, "test_forward", ("compiled", "read"), ("fused",)),
        ),
    ]
    return "\n\n".join(parts)


def _rows(
    results: dict[str, Any], test: str, peers: tuple[str, ...], methods: tuple[str, ...]
) -> list[list[str]]:
    """One row per case of a test: the fused time, the times of the peers, memory."""
    rows = []
    for row in results["rows"]:
        name, case = row["name"].rstrip("]").split("[")
        if name == test:
            times = [f"{row['ratios'][peer]['measured']:.2f}" for peer in peers]
            memory = [f"{row['memory'][method]['peak']:.1f}" for method in methods]
            rows.append([case, f"{row['ns_per_voxel']:.2f}", *times, *memory])
    return rows


# --- GPU: what `make gpu-report` writes -----------------------------------------------------------


def gpu_table(results: dict[str, Any]) -> str:
    """The results as Markdown, as far as they go."""
    build, rows, copy = results["build"], results["rows"], results["copy_gb_per_s"]
    parts = [
        f"{results['gpu']}, driver {results['nvidia_smi'].get('driver_version')}, CUDA "
        f"{build['cuda']}, torch {build['torch']}, commit {results['commit']}; central "
        f"differences, float32 unless said otherwise; a large copy moves {copy:.0f} GB/s. Times of "
        "the others as multiples of the fused loss; memory in volumes above the two images.",
        markdown(
            "loss and gradient | us | GB/s | of the copy | `torch.compile` | eager | `torch.add` "
            "| peak memory | eager's",
            (_gpu_row(name, row, copy) for name, row in rows.items()),
        ),
        markdown(
            "loss alone | us | GB/s | of the copy | two `torch.sum` | peak memory",
            (_gpu_forward_row(name, row, copy) for name, row in rows.items()),
        ),
        markdown(
            "us until done | fused | `torch.compile` | eager | host alone: fused "
            "| `torch.compile` | eager",
            (
                [name, *(_us(row[clock].get(m)) for clock in ("done_ms", "host_ms") for m in PEERS)]
                for name, row in rows.items()
            ),
        ),
    ]
    if "variants_ms" in results:
        plain = results["variants_ms"]["plain"]
        parts.append(
            markdown(
                "256x256x256 with | us | times the plain loss",
                ([k, _us(ms), f"{ms / plain:.2f}"] for k, ms in results["variants_ms"].items()),
            )
        )
    if "yardsticks" in results:
        parts.append(
            markdown(
                "yardstick | goal | measured |",
                (
                    [y["name"], y["goal"], f"{y['measured']:.4g}", _word(y["reached"])]
                    for y in results["yardsticks"]
                ),
            )
        )
    return "\n\n".join(parts)


PEERS = ("fused", "compiled", "eager")


def _us(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{1e3 * milliseconds:.1f}"


def _word(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def _gpu_row(name: str, row: dict[str, Any], copy: float) -> list[str]:
    times, peak = row["busy_ms"], row["peak_volumes"]
    ratios = [
        f"{times[peer] / times['fused']:.2f}" if peer in times else ""
        for peer in ("compiled", "eager", "move")
    ]
    bandwidth = [f"{row['gb_per_s']:.0f}", f"{row['gb_per_s'] / copy:.0%}"]
    memory = [f"{peak[method]:.2f}" for method in ("fused", "eager")]
    return [name, _us(times["fused"]), *bandwidth, *ratios, *memory]


def _gpu_forward_row(name: str, row: dict[str, Any], copy: float) -> list[str]:
    times = row["forward_ms"]
    bandwidth = [f"{row['forward_gb_per_s']:.0f}", f"{row['forward_gb_per_s'] / copy:.0%}"]
    ratio = f"{times['read'] / times['fused']:.2f}"
    return [name, _us(times["fused"]), *bandwidth, ratio, f"{row['forward_peak_volumes']:.2f}"]


# --------------------------------------------------------------------------------------------------


def row_lines(row: dict[str, Any]) -> list[str]:
    """What the terminal shows of a row."""
    return [row["name"], f"    {row}"]


def write_page(path: Path) -> Path:
    """Writes the page of a results file beside it."""
    return path.with_suffix(".md")


def insert(page: str, text: str, name: str) -> str:
    """The page with what stands between the two marks of a name replaced."""
    begin, end = BEGIN.format(name), END.format(name)
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{text}\n{end}{after}"


def main(source: Path, page: Path) -> None:
    """Replaces the tables of the page."""
    results = json.loads(source.read_text())
    if "gpu" in results:
        text, name = gpu_table(results), "gpu results"
    else:
        text, name = table(results, source.as_posix()), "results"
    page.write_text(insert(page.read_text(), text, name))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
