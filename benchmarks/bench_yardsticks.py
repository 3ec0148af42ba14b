# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss against its yardsticks: ``make bench``.

Each test times one case of the fused loss. Before each of its rounds the peers have theirs, so that
all of them meet the same machine; a ratio is that of two medians of one test.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import nec_ext

from .measure import forward_only, loss_and_gradient, peak_memory, saved_memory, seconds
from .peers import eager_ngf_loss

compiled_ngf_loss = torch.compile(eager_ngf_loss, dynamic=False)


class Case(NamedTuple):
    """One row of the table: a size, and the least ratio wanted against each peer."""

    shape: tuple[int, ...]
    rounds: int
    wanted: dict[str, float]  # time of the peer divided by the time of the fused loss


TRAINING = {
    "3D 160x192x160": Case((1, 1, 160, 192, 160), 15, {"compiled": 10, "eager": 50, "move": 1 / 3}),
    "3D 256x256x256": Case((1, 1, 256, 256, 256), 9, {"compiled": 10, "eager": 50, "move": 1 / 3}),
    "2D 16 x 256x256": Case((16, 1, 256, 256), 50, {"compiled": 8}),
    "2D 1 x 256x256": Case((1, 1, 256, 256), 200, {"compiled": 10}),
}
FORWARD = {
    "3D 160x192x160": Case((1, 1, 160, 192, 160), 31, {"read": 1 / 2}),
    "3D 256x256x256": Case((1, 1, 256, 256, 256), 15, {"read": 1 / 2}),
}


def images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def time_beside(
    benchmark: pytest.FixtureRequest,
    fused: Callable[[], object],
    peers: dict[str, Callable[[], object]],
    case: Case,
) -> None:
    """Times the fused call with pytest-benchmark, and the peers before each of its rounds."""
    times: dict[str, list[float]] = {name: [] for name in peers}

    def run_peers() -> None:
        for name, call in peers.items():
            times[name].append(seconds(call))

    for call in (fused, *peers.values()):  # compiles, and maps the memory that will be reused
        call()
    benchmark.pedantic(fused, setup=run_peers, rounds=case.rounds, warmup_rounds=1)
    median = benchmark.stats.stats.median
    voxels = torch.Size(case.shape).numel()
    benchmark.extra_info["ns_per_voxel"] = median / voxels * 1e9
    benchmark.extra_info["ratios"] = {
        name: {"measured": statistics.median(t) / median, "wanted": case.wanted.get(name)}
        for name, t in times.items()
    }


@pytest.mark.parametrize("name", TRAINING)
def test_loss_and_gradient(benchmark: pytest.FixtureRequest, name: str) -> None:
    case = TRAINING[name]
    input, target = images(case.shape)
    exact_loss, exact_gradient = loss_and_gradient(
        nec_ext.reference.ngf_loss, input.double(), target.double()
    )
    for function in (nec_ext.ngf_loss, eager_ngf_loss, compiled_ngf_loss):
        loss, gradient = loss_and_gradient(function, input, target)
        torch.testing.assert_close(loss.double(), exact_loss, rtol=1e-5, atol=0)
        assert (gradient - exact_gradient).norm() < 1e-5 * exact_gradient.norm()

    time_beside(
        benchmark,
        lambda: loss_and_gradient(nec_ext.ngf_loss, input, target),
        {
            "compiled": lambda: loss_and_gradient(compiled_ngf_loss, input, target),
            "eager": lambda: loss_and_gradient(eager_ngf_loss, input, target),
            "move": lambda: torch.add(input, target),
        },
        case,
    )
    volume = input.numel() * input.element_size()
    benchmark.extra_info["memory"] = {
        method: {
            "peak": peak_memory(lambda f=function: loss_and_gradient(f, input, target)) / volume,
            "saved": saved_memory(function, input, target) / volume,
        }
        for method, function in (("fused", nec_ext.ngf_loss), ("eager", eager_ngf_loss))
    }


@pytest.mark.parametrize("name", FORWARD)
def test_forward(benchmark: pytest.FixtureRequest, name: str) -> None:
    case = FORWARD[name]
    input, target = images(case.shape)
    time_beside(
        benchmark,
        lambda: forward_only(nec_ext.ngf_loss, input, target),
        {
            "compiled": lambda: forward_only(compiled_ngf_loss, input, target),
            "read": lambda: (input.sum(), target.sum()),
        },
        case,
    )
    volume = input.numel() * input.element_size()
    peak = peak_memory(lambda: forward_only(nec_ext.ngf_loss, input, target))
    benchmark.extra_info["memory"] = {"fused": {"peak": peak / volume, "saved": 0.0}}
