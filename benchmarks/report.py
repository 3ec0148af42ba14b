# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Writes the tables of README.md: ``python -m benchmarks.report RESULTS.json README.md``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def table(results: dict[str, Any], source: str) -> str:
    """The results as Markdown."""
    build = results["build"]
    lines = [
        f"{results['cpu']}, {results['threads']} threads, {build['cpu_capability']}, "
        f"torch {build['torch']}, float32, central differences. Times of the others as multiples "
        "of the fused loss; memory in volumes above the two images. "
        f"From `{source}`, written by `make bench`.",
        "",
        "| loss and gradient | ns per voxel | `torch.compile` | eager | `torch.add` "
        "| peak memory | eager's |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += _rows(
        results, "test_loss_and_gradient", ("compiled", "eager", "move"), ("fused", "eager")
    )
    lines += [
        "",
        "| loss alone | ns per voxel | `torch.compile` | two `torch.sum` | peak memory |",
        "|---|---|---|---|---|",
    ]
    lines += _rows(results, "test_forward", ("compiled", "read"), ("fused",))
    return "\n".join(lines)


def _rows(
    results: dict[str, Any], test: str, peers: tuple[str, ...], methods: tuple[str, ...]
) -> list[str]:
    """One line per case of a test: the fused time, the times of the peers, memory."""
    lines = []
    for row in results["rows"]:
        name, case = row["name"].rstrip("]").split("[")
        if name == test:
            times = [f"{row['ratios'][peer]['measured']:.2f}" for peer in peers]
            memory = [f"{row['memory'][method]['peak']:.1f}" for method in methods]
            cells = [case, f"{row['ns_per_voxel']:.2f}", *times, *memory]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def insert(page: str, text: str) -> str:
    """The page with what stands between the two marks replaced."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(results: Path, page: Path) -> None:
    """Replaces the tables of the page."""
    text = table(json.loads(results.read_text()), results.as_posix())
    page.write_text(insert(page.read_text(), text))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
