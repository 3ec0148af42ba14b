# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Benchmarks of whole training steps, of which the loss is a part."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("monai")
pytest.importorskip("nibabel")
pytest.importorskip("scipy")
pytest.importorskip("skimage")
pytest.importorskip("tqdm")

from examples.common.measure import LossFunction

from .bench_sweeps import few
from .measure import seconds
from .peers import other_losses
from .race import Call, Race, steps
from .workloads import Registration, Synthesis, Workload, paper_2d, tiny, unet_3d

pytestmark = pytest.mark.filterwarnings(
    # MONAI's losses index with lists of slices, which a later torch will read as tensors.
    "ignore:Using a non-tuple sequence:UserWarning",
    # torch.compile looks at the .grad of the generator's output.
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
)

ROUNDS = 5  # in which the loss is timed alone
# Memory is predicted from these edges: in smaller patches the networks' gradients dominate it.
PROBES, QUICK_PROBES = (64, 96), (16, 32)
EDGE_STEP = 16  # the generator halves a patch four times
CASES = (
    "2D paper generator 256x256",
    "3D U-Net 96x96x96",
    "3D U-Net largest patch",
    "registration",
)


@pytest.mark.parametrize("case", CASES)
def test_training(
    race: Race, case: str, training_budget: float, request: pytest.FixtureRequest
) -> None:
    """Measure training steps that differ only in the loss."""
    functions = few()
    workload: Workload
    if case == "registration":
        functions["MONAI LNCC"] = other_losses(3)["MONAI LNCC"]
        workload = registration(race, request.config.getoption("--brats"))
    elif case.startswith("2D"):
        workload = tiny(race.device, 2, 32) if race.quick else paper_2d(race.device)
    elif case.endswith("largest patch"):
        workload = patches(race, largest_common_edge(race, functions, training_budget))
    else:
        workload = patches(race, 32 if race.quick else 96)

    race.row.update(what=workload.what, shape=list(workload.images[0].shape), dtype="float32")
    calls: dict[str, Call] = {
        name: partial(workload.step, function) for name, function in functions.items()
    }
    race.times(calls, budget=20)
    race.row["loss_ms"] = loss_alone(race, functions, *workload.images)
    race.row["peak_bytes"] = {name: race.peak(call) for name, call in calls.items()}
    race.row["lasting_bytes"] = lasting_bytes(workload)


def registration(race: Race, brats: Path | None) -> Registration:
    """Make the registration of a folder's first subject, or of the phantom."""
    demo = pytest.importorskip("examples.demo")
    if brats and not race.quick:
        subjects = sorted(brats.glob("*/*-t1n.nii.gz"))
        if not subjects:
            pytest.fail(f"{brats} holds no folders of BraTS subjects")
        t1 = subjects[0]
        pair = demo.read_pair(t1, t1.with_name(t1.name.replace("-t1n", "-t2w")))
    else:
        pair = demo.phantom_pair((24, 24, 16) if race.quick else (160, 192, 160))
    return Registration(pair.name, pair.t1.to(race.device), pair.t2.to(race.device))


def patches(race: Race, edge: int) -> Synthesis:
    return tiny(race.device, 3, edge) if race.quick else unet_3d(race.device, edge)


def loss_alone(
    race: Race, functions: dict[str, LossFunction], *images: Tensor
) -> dict[str, list[float]]:
    """Time the loss and its gradient without the networks; return quartiles in ms.

    The difference of two whole steps would drown in their noise.
    """
    calls = steps(functions, *images)
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(1e3 * seconds(call, race.meter))
    return {
        name: [round(ms, 6) for ms in statistics.quantiles(record, n=4, method="inclusive")]
        for name, record in times.items()
    }


def largest_common_edge(race: Race, functions: dict[str, LossFunction], budget: float) -> int:
    """Find the largest patch for each loss; return the smallest of them, which fits with all."""
    probes = QUICK_PROBES if race.quick else PROBES
    race.row["largest"] = {
        name: largest_edge(partial(needed_bytes, race, function), budget, probes)
        for name, function in functions.items()
    }
    race.row["budget_bytes"] = budget
    return min(race.row["largest"].values())


def largest_edge(needed: Callable[[int], float], budget: float, probes: tuple[int, int]) -> int:
    """Find the edge of the largest cube that fits: predict it from two small ones, then measure.

    A prediction from that measurement, or another measurement, shows that the next edge is too
    large.
    """
    small, larger = probes
    small_bytes = needed(small)
    if small_bytes > budget:
        pytest.skip(f"not even an edge of {small} fits the budget")

    def predicted(edge: int, edge_bytes: float) -> int:
        voxels_per_byte = (edge**3 - small**3) / (edge_bytes - small_bytes)
        root = (small**3 + (budget - small_bytes) * voxels_per_byte) ** (1 / 3)
        return int(root / EDGE_STEP + 1e-9) * EDGE_STEP

    edge = predicted(larger, needed(larger))
    while (found := needed(edge)) > budget:
        edge -= EDGE_STEP
    while edge > small and predicted(edge, found) > edge:
        if (found := needed(edge + EDGE_STEP)) > budget:
            break
        edge += EDGE_STEP
    return edge


def needed_bytes(race: Race, function: LossFunction, edge: int) -> float:
    """Measure the peak bytes of training on patches of this edge; infinity if they do not fit."""
    torch.compiler.reset()  # torch compiles a function for a limited number of shapes
    try:
        workload = patches(race, edge)
        step = partial(workload.step, function)
        step()  # the first step compiles, and makes the optimizers' states
        return race.peak(step) + lasting_bytes(workload)
    except torch.OutOfMemoryError:
        return math.inf


def lasting_bytes(workload: Workload) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in workload.lasting())
