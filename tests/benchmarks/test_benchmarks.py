# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The benchmarks run from end to end, and refuse to time a formula that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import run_python

from benchmarks.machine import joined
from benchmarks.measure import CPU, seconds
from benchmarks.race import Race
from examples.common.eager import eager_ngf_loss
from nec_ext import ngf_loss, reference


@pytest.mark.slow
def test_all_of_it_runs(tmp_path: Path) -> None:
    options = ["--quick", "--device", "cpu", "--results", str(tmp_path), "-p", "no:cacheprovider"]
    # Nothing is compiled.
    run = run_python("-m", "pytest", "benchmarks", "-q", *options, TORCHDYNAMO_DISABLE="1")
    assert run.returncode == 0, run.stdout + run.stderr
    (results,) = tmp_path.glob("*.json")
    found = json.loads(results.read_text())
    tests = {row["name"].split("[")[0] for row in found["rows"]}
    assert tests == {
        f"test_{name}"
        for name in ("step", "forward", "size", "batch", "threads", "fits", "options", "training")
    }
    for row in found["rows"]:
        if row["name"] == "test_step[3D 160x192x160]":
            assert row["memory"]["fused"]["peak"] == pytest.approx(1, abs=0.1)
            assert row["memory"]["eager"]["peak"] > 10
        if row["name"] == "test_fits":
            assert max(row["fits"]["peak_bytes"].values()) <= row["fits"]["budget_bytes"]
    assert results.with_suffix(".md").exists()


@pytest.fixture
def race() -> Race:
    """Make a race with a stand-in for pytest-benchmark."""
    times: list[float] = []

    def pedantic(call: Any, setup: Any, rounds: int) -> None:
        for _ in range(rounds):
            setup()
            times.append(seconds(call))

    benchmark = SimpleNamespace(
        extra_info={}, pedantic=pedantic, stats=SimpleNamespace(stats=SimpleNamespace(data=times))
    )
    return Race(benchmark, CPU, "cpu", quick=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda input, target: ngf_loss(input, target) * (1 + 1e-4),
        # The right value with half of the gradient.
        lambda input, target: 0.5 * (ngf_loss(input, target) + ngf_loss(input.detach(), target)),
        lambda input, target: ngf_loss(input, target) + float("nan"),
    ],
)
def test_a_wrong_peer_is_not_timed(race: Race, wrong: Any) -> None:
    images = race.images((1, 1, 128, 128, 128))
    race.check({"right": eager_ngf_loss}, reference.ngf_loss, *images)
    with pytest.raises(AssertionError, match="peer is wrong"):
        race.check({"peer": wrong}, reference.ngf_loss, *images)


def test_every_call_has_a_turn_in_each_round(race: Race) -> None:
    turns: list[str] = []
    race.times({name: lambda name=name: turns.append(name) for name in ("fused", "a", "b")})
    assert turns[-6:] == ["b", "a", "fused", "a", "b", "fused"]


def test_only_runs_of_the_same_commit_join() -> None:
    facts = {"cpu": "a", "commit": "1234567", "nvidia_smi": "slow"}
    earlier = {**facts, "nvidia_smi": "fast", "rows": [{"name": "x", "ms": 1}, {"name": "y"}]}
    rows = [{"name": "x", "ms": 2}]
    assert joined(earlier, facts, rows) == [{"name": "y"}, {"name": "x", "ms": 2}]
    for change in ({"commit": "7654321"}, {"cpu": "b"}, {"commit": "1234567-dirty"}):
        assert joined(earlier, {**facts, **change}, rows) == rows
