# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Shows the ratios and the memory below pytest-benchmark's own table, and writes them to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_benchmark.utils import get_commit_info

import nec_ext


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="JSON file to write ratios and memory to")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [summary(bench) for bench in getattr(session, "benchmarks", []) if bench.extra_info]
    if not rows:
        return
    terminalreporter.section("times of the peers, as multiples of the fused loss")
    for row in rows:
        ratios = ", ".join(f"{name} {shown(ratio)}" for name, ratio in row["ratios"].items())
        memory = ", ".join(
            f"{method} {m['peak']:.2f} volumes at peak, {m['saved']:.2f} saved"
            for method, m in row.get("memory", {}).items()
        )
        terminalreporter.write_line(f"{row['name']}: {row['ns_per_voxel']:.2f} ns per voxel")
        terminalreporter.write_line(f"    {ratios}; {memory}")
    path = config.getoption("--results")
    if path:
        machine = config.hook.pytest_benchmark_generate_machine_info(config=config)["cpu"]
        facts = {
            "cpu": machine.get("brand_raw") or machine.get("brand"),
            "threads": torch.get_num_threads(),
            "build": nec_ext.build_info(),
            "commit": get_commit_info().get("id"),
            "rows": rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=2) + "\n")
        terminalreporter.write_line(f"written: {path}")


def shown(ratio: dict[str, float | None]) -> str:
    """A ratio, and the least that is wanted where it falls short."""
    measured, wanted = ratio["measured"], ratio["wanted"]
    return (
        f"{measured:.2f}"
        if wanted is None or measured >= wanted
        else f"{measured:.2f} (wanted {wanted:.2f})"
    )


def summary(bench: Any) -> dict[str, Any]:
    stats = bench.stats
    return {
        "name": bench.name,
        "rounds": stats.rounds,
        "median_ms": stats.median * 1e3,
        "iqr_ms": stats.iqr * 1e3,
        **bench.extra_info,
    }
