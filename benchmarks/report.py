# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Write pages of results: ``python -m benchmarks.report RESULTS.json ... [PAGE.md ...]``.

The command writes the page of each results file with its plots, and the short table of all of them
into further pages, as README.md and docs/performance.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import textwrap
from pathlib import Path

from .console import run_command
from .rows import Results, Row, digits, duration, load, mark, median, percent, ratio, share, voxels
from .sections import head, largest, sections

__all__ = ["insert", "row_lines", "tables", "write_page"]

WIDTH = 110
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"

# --- The terminal ---------------------------------------------------------------------------------


def row_lines(row: Row) -> list[str]:
    """Return the lines that the terminal shows of a row."""
    lines = [f"{row['name']}:{_fused(row)}"]
    others = [call for call in row.get("ms", ()) if call != "fused"]
    lines.append("; ".join(f"{c} {digits(ratio(row, c))}x{mark(row, c)}" for c in others))
    if "memory" in row:
        kinds = "peak and saved" if "saved" in row["memory"]["fused"] else "peak"
        volumes = (
            f"{call} {', '.join(f'{v:.2f}' for v in by_kind.values())}"
            for call, by_kind in row["memory"].items()
        )
        lines.append(f"{kinds} memory, volumes: {'; '.join(volumes)}")
    if "not compiled" in row:
        lines.append(f"torch cannot compile: {'; '.join(row['not compiled'])}")
    if "fits" in row:
        edges = "; ".join(f"{call} {edge}" for call, edge in row["fits"]["edges"].items())
        lines.append(f"largest edge within {row['fits']['budget_bytes'] / 1e9:g} GB: {edges}")
    if "loss_ms" in row:
        parts = "; ".join(f"{call} {percent(share(row, call))}" for call in row["ms"])
        lines.append(f"the loss's share of the step: {parts}")
    lines.append(largest(row))
    lines += [
        f"MISSED: {goal['name']} {goal['goal']}, measured {goal['measured']:.3g}"
        for goal in row["goals"]
        if not goal["reached"]
    ]
    first, *rest = filter(None, lines)
    indented = (
        textwrap.wrap(line, WIDTH, initial_indent="    ", subsequent_indent=" " * 8)
        for line in rest
    )
    return [first, *(line for wrapped in indented for line in wrapped)]


def _fused(row: Row) -> str:
    if "ms" not in row:
        return ""
    text = f" fused {duration(median(row, 'fused'))}{mark(row, 'fused')}"
    if "shape" not in row or "loss_ms" in row:  # the time is not that of a loss alone
        return text
    return f"{text}, {digits(1e6 * median(row, 'fused') / voxels(row))} ns per voxel"


# --- The page -------------------------------------------------------------------------------------


def tables(results: Results) -> str:
    """Return the text of the page without its plots."""
    return _page(results, {}, "")


def write_page(path: Path) -> Path:
    """Write the page of a results file, and a folder with its plots, beside the file."""
    results, folder = load(path), path.with_suffix("")
    drawn: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib"):  # a machine that only measures may lack it
        from .plots import draw

        drawn = draw(results, folder)
    page = path.with_suffix(".md")
    page.write_text(_page(results, drawn, folder.name))
    return page


def _page(results: Results, plots: dict[str, str], folder: str) -> str:
    parts = [head(results)]
    for part in sections(results):
        shown = [f"![{plots[name]}]({folder}/{name}.png)" for name in part.plots if name in plots]
        parts += [f"## {part.title}", *part.paragraphs, *shown]
    return "\n\n".join(parts) + "\n"


# --- Other pages ----------------------------------------------------------------------------------


def insert(page: str, text: str, name: str) -> str:
    """Replace the text between the two marks of a name, and return the new page."""
    begin, end = BEGIN.format(name), END.format(name)
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"The page needs the marks {begin} and {end}, in this order.")
    return f"{before}{begin}\n{text}\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="RESULTS.json ... [PAGE.md ...]")
    files = parser.parse_args().files
    paths = [path for path in files if path.suffix == ".json"]
    pages = [path for path in files if path not in paths]
    for page in pages:
        if not page.is_file():
            raise SystemExit(f"{page} is not a file.")
    for path in paths:
        print(f"written: {write_page(path)}")
    if pages:
        from .summary import summary  # which needs matplotlib
    for page in pages:
        page.write_text(insert(page.read_text(), summary(paths, page.parent), "results"))


if __name__ == "__main__":
    run_command(main)
