# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fixtures of the benchmarks, and the report of their measurements."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import nec_ext

from . import machine
from .measure import Meter, meters
from .race import Race
from .report import row_lines, write_page
from .rows import load

CLOCKS = pytest.StashKey[dict[str, Meter]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nec_ext")
    group.addoption("--results", type=Path, help="folder for a JSON file, a page and its plots")
    group.addoption("--device", choices=("cpu", "cuda"), help="default: cuda where it can be used")
    group.addoption("--quick", action="store_true", help="tiny images, to see that all of it runs")
    group.addoption(
        "--brats",
        type=Path,
        default=os.environ.get("NEC_EXT_BRATS"),
        help="folder of BraTS subjects for the registration step; default: a phantom",
    )
    group.addoption(
        "--budget",
        type=float,
        help="GB that the largest volumes of the loss have to fit; default 2, on a GPU 90 %% of it",
    )
    group.addoption(
        "--training-budget",
        type=float,
        help="GB that the largest patch of a training step has to fit; default 2, on a GPU 90 %%",
    )


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return _device(request.config)


@pytest.fixture(scope="session")
def budget(request: pytest.FixtureRequest) -> float:
    """Return the bytes that two images and all tensors computed from them may take."""
    return _gigabytes(request.config, "--budget", quick=2e-3, cpu=2) * 1e9


@pytest.fixture(scope="session")
def training_budget(request: pytest.FixtureRequest) -> float:
    """Return the bytes that networks and a training step may take."""
    return _gigabytes(request.config, "--training-budget", quick=0.1, cpu=2) * 1e9


def _gigabytes(config: pytest.Config, option: str, *, quick: float, cpu: float) -> float:
    if config.getoption("--quick"):
        return quick
    default = cpu
    if _device(config) == "cuda":
        default = 0.9e-9 * torch.cuda.get_device_properties(0).total_memory
    return config.getoption(option) or default


@pytest.fixture
def race(
    benchmark: Any, request: pytest.FixtureRequest, device: str, clocks: dict[str, Meter]
) -> Race:
    torch.compiler.reset()
    meter, quick = clocks[_clock(request.node)], request.config.getoption("--quick")
    return Race(benchmark, meter, device, quick)


@pytest.fixture(scope="session")
def clocks(request: pytest.FixtureRequest) -> dict[str, Meter]:
    return request.config.stash[CLOCKS]


def _device(config: pytest.Config) -> str:
    usable = "cuda" in nec_ext._ops.FUSED_DEVICES and torch.cuda.is_available()
    return config.getoption("--device") or ("cuda" if usable else "cpu")


def _clock(item: pytest.Item) -> str:
    """Return the name of a test's clock: its parameter ``clock``, or else ``device``."""
    return item.callspec.params.get("clock", "device") if hasattr(item, "callspec") else "device"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give pytest-benchmark the clocks of the device; leave out tests for another device."""
    device = _device(config)
    clocks = config.stash[CLOCKS] = meters(device)
    # TF32 would round the inputs of a convolution, and the peers compute in float32.
    torch.backends.cudnn.allow_tf32 = False
    here = [
        item
        for item in items
        if _clock(item) in clocks and (device == "cuda" or not item.get_closest_marker("cuda"))
    ]
    for item in here:
        item.add_marker(pytest.mark.benchmark(timer=clocks[_clock(item)].timer))
    config.hook.pytest_deselected(items=[item for item in items if item not in here])
    items[:] = here


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print ratios and memory below pytest-benchmark's own table, and write the results."""
    session = getattr(config, "_benchmarksession", None)
    rows = [
        {"name": bench.name, **bench.extra_info}
        for bench in getattr(session, "benchmarks", [])
        if "ms" in bench.extra_info  # a test that failed may have no times
    ]
    if not rows:
        return
    terminalreporter.section("median times, and memory above the images")
    for row in rows:
        for line in row_lines(row):
            terminalreporter.write_line(line)
    folder = config.getoption("--results")
    if folder:
        cpu = config.hook.pytest_benchmark_generate_machine_info(config=config)["cpu"]
        facts = machine.facts(_device(config), cpu.get("brand_raw") or cpu.get("brand"))
        path = folder / f"{machine.slug(facts)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            rows = machine.joined(load(path), facts, rows)
        path.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
        terminalreporter.write_line(f"written: {path}, {write_page(path)}")
