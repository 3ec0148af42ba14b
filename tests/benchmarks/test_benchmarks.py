# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The benchmarks run from end to end, and refuse to time a formula that is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import run_python
from monai.losses import BendingEnergyLoss
from torch import Tensor

import nec_ext
from benchmarks import bench_training, workloads
from benchmarks.machine import joined
from benchmarks.measure import CPU, seconds
from benchmarks.race import Race
from benchmarks.workloads import Registration, Synthesis, Workload
from examples.common.eager import eager_ngf_loss
from examples.common.measure import LossFunction
from examples.registration.warp import warp
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


# --- In the training steps nothing but the loss is swapped ----------------------------------------

pytestmark = bench_training.pytestmark


# In float64: Adam takes whole steps where a gradient is but rounding errors.
def synthesis() -> Synthesis:
    workload = workloads.tiny("cpu", 3, 16)
    workload.learner.system.double()
    torch.manual_seed(0)
    workload.images = tuple(torch.rand(2, 1, 1, 16, 16, 16, dtype=torch.float64))
    return workload


def registration() -> Registration:
    torch.manual_seed(0)
    noise = F.avg_pool3d(torch.randn(1, 1, 16, 16, 16, dtype=torch.float64), 5, stride=1, padding=2)
    return Registration("noise", noise, -noise.roll(1, dims=2))


@pytest.mark.parametrize("build", [synthesis, registration])
def test_nothing_but_the_loss_is_swapped(build: Callable[..., Workload]) -> None:
    def way_of(function: LossFunction) -> Tensor:
        workload = build()
        parameters = [tensor for tensor in workload.lasting() if tensor.requires_grad]
        before = torch.cat([p.detach().flatten() for p in parameters])
        for _ in range(2):
            workload.step(function)
        assert all(tensor.grad is None for tensor in workload.lasting())
        return torch.cat([p.detach().flatten() for p in parameters]) - before

    fused, eager, other = map(way_of, (nec_ext.ngf_loss, eager_ngf_loss, F.l1_loss))
    assert (fused - eager).norm() < 1e-8 * eager.norm()
    assert (other - eager).norm() > 0.1 * eager.norm()


def test_a_registration_descends_loss_and_bending_energy() -> None:
    workload = registration()
    fixed, moving = workload.images
    knots = workload.descent.knots
    with torch.no_grad():
        knots.normal_()
    warped = warp(moving, F.interpolate(knots, fixed.shape[2:], mode="trilinear"), (1.0, 1.0, 1.0))
    loss = F.l1_loss(warped, fixed) + 0.1 * BendingEnergyLoss()(knots)
    (expected,) = torch.autograd.grad(loss, knots)
    workload.step(F.l1_loss)
    (state,) = workload.optimizers[0].state.values()
    # The first step makes Adam's mean of the gradients a tenth of the first one.
    torch.testing.assert_close(10 * state["exp_avg"], expected)


def test_largest_edge() -> None:
    for budget, further in ((8e5, 8.0), (3e6, 20.0), (1e8, 8.0)):

        def needed(edge: int, further: float = further) -> float:
            return 1e5 + 10 * min(edge, 40) ** 3 + further * max(edge**3 - 40**3, 0)

        found = bench_training.largest_edge(needed, budget, (16, 32))
        assert needed(found) <= budget < needed(found + 16)
