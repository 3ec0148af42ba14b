# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Benchmarks of the fused loss beside all of its peers: a training step, and the loss alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import nec_ext
from examples.common.measure import forward_only

from .measure import kernels
from .peers import hand_written, other_losses
from .race import Call, Race, steps

MEGABYTE = 2**20
SIZES = {
    "2D 1 x 256x256": (1, 1, 256, 256),
    "2D 16 x 256x256": (16, 1, 256, 256),
    "2D 1 x 2048x2048": (1, 1, 2048, 2048),
    "3D 96x96x96": (1, 1, 96, 96, 96),
    "3D 128x128x128": (1, 1, 128, 128, 128),
    "3D 160x192x160": (1, 1, 160, 192, 160),
    "3D 240x240x155": (1, 1, 240, 240, 155),
    "3D 256x256x256": (1, 1, 256, 256, 256),
}
GPU_SIZES = {"3D 384x384x384": (1, 1, 384, 384, 384), "3D 512x512x512": (1, 1, 512, 512, 512)}
HALF_SIZES = ("2D 16 x 256x256", "3D 160x192x160")
# These take seconds on a CPU, so the largest volumes leave them out.
SLOW = ("eager, convolutions", "MONAI LNCC")

# The goals are least ratios of times, peer / fused, by device. `torch.add` reads two volumes and
# writes a third, and no loss with a gradient can move fewer bytes.
LARGE = ("3D 160x192x160", "3D 256x256x256")
STEP_GOALS = {
    "cpu": {
        **{size: {"torch.compile": 10, "eager": 50, "torch.add": 1 / 3} for size in LARGE},
        "2D 16 x 256x256": {"torch.compile": 8},
        "2D 1 x 256x256": {"torch.compile": 10},
    },
    "cuda": {
        "3D 160x192x160": {"torch.compile": 3.5, "eager": 20},
        "3D 256x256x256": {"torch.compile": 3.5, "eager": 20, "torch.add": 1 / 1.25},
        "2D 16 x 256x256": {"torch.compile": 3},
    },
}
FORWARD_GOALS = {"cpu": 1 / 2, "cuda": 1 / 1.25}


def marks(size: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a size: ``cuda`` if it needs a GPU, ``yardstick`` if it has a goal."""
    needed = [pytest.mark.cuda] if size in GPU_SIZES else []
    return needed + [pytest.mark.yardstick] * any(size in goals for goals in STEP_GOALS.values())


CASES = [
    *(
        pytest.param(size, torch.float32, id=size, marks=marks(size))
        for size in (*SIZES, *GPU_SIZES)
    ),
    *(pytest.param(size, torch.bfloat16, id=f"{size} bfloat16") for size in HALF_SIZES),
]


def both_gradients(*images: Tensor) -> Callable[[], object]:
    def step() -> object:
        leaves = [image.detach().requires_grad_() for image in images]
        return torch.autograd.grad(nec_ext.ngf_loss(*leaves), leaves)

    return step


def in_time(race: Race, calls: dict[str, Call]) -> dict[str, Call]:
    """Return the calls without those that take too long at the size of the race."""
    large = math.prod(race.row["shape"]) > math.prod(SIZES["3D 160x192x160"])
    slow = SLOW if large and race.device == "cpu" else ()
    return {name: call for name, call in calls.items() if name not in slow}


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_step(race: Race, size: str, dtype: torch.dtype) -> None:
    """Measure the loss and its gradient by ``input``."""
    images = race.images((SIZES | GPU_SIZES)[size], dtype)
    traced = {"fused, torch.compile": torch.compile(nec_ext.ngf_loss, fullgraph=True)}
    written = {"fused": nec_ext.ngf_loss, **hand_written(), **traced}
    functions = race.check(written, nec_ext.reference.ngf_loss, *images)
    calls = {
        **steps(functions, *images),
        "fused, both gradients": both_gradients(*images),
        **steps(other_losses(images[0].dim() - 2), *images),
        "torch.add": lambda: torch.add(*images),
    }
    race.times(in_time(race, calls), budget=12)
    race.memory(functions, *images)

    if dtype != torch.float32:
        return
    for peer, goal in STEP_GOALS[race.device].get(size, {}).items():
        race.at_least(f"{peer} / fused", race.ratio(peer), goal)
    if size in LARGE:
        small_change = MEGABYTE / (images[0].numel() * images[0].element_size())
        for kind, volumes in race.row["memory"]["fused"].items():
            race.at_most(f"{kind} memory, volumes", volumes, 1 + small_change)
        errors = race.row["errors"]["fused"]
        race.at_most("relative error of the loss", errors["loss"], 1e-6)
        race.at_most("relative error of the gradient", errors["gradient"], 1e-5)
    if race.device == "cuda" and size == "2D 1 x 256x256":
        leaf = images[0].clone().requires_grad_()
        # One kernel computes the loss and its gradient, and one adds up the partial sums.
        launched = kernels(lambda: nec_ext.ngf_loss(leaf, images[1]))
        race.row["kernels"] = launched
        race.at_least("a kernel is seen", len(launched), 1)
        race.at_most("kernels of a loss and its gradient", len(launched), 2)


@pytest.mark.parametrize(("size", "dtype"), CASES)
def test_forward(race: Race, size: str, dtype: torch.dtype) -> None:
    """Measure the loss alone, under no_grad."""
    images = race.images((SIZES | GPU_SIZES)[size], dtype)
    written = hand_written()
    formulas = ("torch.compile", "torch.compile, voxels", "eager")
    functions = {
        "fused": nec_ext.ngf_loss,
        **{name: written[name] for name in formulas},
        **other_losses(images[0].dim() - 2),
    }
    calls: dict[str, Call] = {
        name: partial(forward_only, function, *images) for name, function in functions.items()
    }
    calls = {name: calls[name] for name, _ in race.compiled(in_time(race, calls))}
    # This call reads both images and writes nothing, the least that a loss alone can do.
    calls["two torch.sum"] = lambda: [image.sum() for image in images]
    race.times(calls, budget=6)
    volume = images[0].numel() * images[0].element_size()
    race.row["memory"] = {
        name: {"peak": race.peak(calls[name]) / volume}
        for name in ("fused", *formulas)
        if name in calls
    }
    if dtype == torch.float32 and size in LARGE:
        goal = FORWARD_GOALS[race.device]
        race.at_least("two torch.sum / fused", race.ratio("two torch.sum"), goal)
        peak = race.row["memory"]["fused"]["peak"]
        race.at_most("peak memory, volumes", peak, MEGABYTE / volume)
