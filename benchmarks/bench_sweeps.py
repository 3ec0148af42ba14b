# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Benchmarks of a training step over size, batch and threads, and the largest cube in a budget."""

from __future__ import annotations

import pytest
import torch

import nec_ext
from examples.common.measure import LossFunction

from .peers import hand_written
from .race import Race, steps

EDGES = (16, 24, 32, 48, 64, 96, 128, 192, 256)
GPU_EDGES = (320, 384, 448, 512)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
THREADS = [1 << k for k in range(torch.get_num_threads().bit_length())]
FIT_STEP = 8  # voxels between the edges that are tried


def few() -> dict[str, LossFunction]:
    """Return the fused loss and its leanest peers."""
    written = hand_written()
    return {
        "fused": nec_ext.ngf_loss,
        **{name: written[name] for name in ("torch.compile", "eager")},
    }


def measure_steps(race: Race, *shape: int, budget: float) -> dict[str, LossFunction]:
    functions = few()
    images = race.images(shape)
    race.times(
        {**steps(functions, *images), "torch.add": lambda: torch.add(*images)}, budget=budget
    )
    race.memory(functions, *images)
    return functions


@pytest.mark.parametrize(
    "edge", [*EDGES, *(pytest.param(edge, marks=pytest.mark.cuda) for edge in GPU_EDGES)]
)
def test_size(race: Race, edge: int) -> None:
    """Measure a cube; overhead dominates the small ones, memory the large ones."""
    measure_steps(race, 1, 1, edge, edge, edge, budget=6)


@pytest.mark.parametrize("clock", ["device", "done", "host"])
@pytest.mark.parametrize("batch", BATCHES)
def test_batch(race: Race, batch: int, clock: str) -> None:
    """Measure a batch of 256x256 images, where overhead dominates."""
    race.row["clock"] = clock
    measure_steps(race, batch, 1, 256, 256, budget=3)


@pytest.mark.parametrize("threads", THREADS)
def test_threads(race: Race, threads: int) -> None:
    """Measure one volume with a number of threads."""
    if race.device == "cuda":
        pytest.skip("threads of the CPU")
    race.row["threads"] = threads
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        measure_steps(race, 1, 1, 160, 192, 160, budget=6)
    finally:
        torch.set_num_threads(before)


def test_fits(race: Race, budget: float) -> None:
    """Find the largest cube that fits a budget, the two images included."""
    functions = {"fused": nec_ext.ngf_loss, **hand_written()}
    edges, peaks = {}, {}

    def needed(function: LossFunction, edge: int) -> float:
        torch.compiler.reset()
        images = [torch.rand(1, 1, edge, edge, edge, device=race.device) for _ in range(2)]
        try:
            peak = race.peak(*steps({"": function}, *images).values())
        except torch.OutOfMemoryError:
            return float("inf")
        return peak + sum(image.numel() * image.element_size() for image in images)

    for name, function in functions.items():
        probe = 4 * FIT_STEP
        guess = probe * (budget / needed(function, probe)) ** (1 / 3)
        edge = int(guess) // FIT_STEP * FIT_STEP
        while (peak := needed(function, edge)) > budget:
            edge -= FIT_STEP
        while (larger := needed(function, edge + FIT_STEP)) <= budget:
            edge, peak = edge + FIT_STEP, larger
        edges[name], peaks[name] = edge, peak
    race.row["fits"] = {"budget_bytes": budget, "edges": edges, "peak_bytes": peaks}
    race.times(steps({"fused": nec_ext.ngf_loss}, *race.images((1, 1, *(edges["fused"],) * 3))), 3)
