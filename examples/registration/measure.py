# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""One registration and what it is judged by."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.measure import peak_memory

from .images import Problem
from .register import LOSSES, Descent, Settings, pyramid, register
from .warp import jacobian_determinant, target_registration_error


@dataclass(frozen=True)
class Accuracy:
    """Over the brain of the fixed image."""

    tre_mean: float  # mm
    tre_95: float  # mm, percentile
    tre_max: float  # mm
    folded: float  # share of the voxels in which the Jacobian determinant is not positive


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    pair: str
    method: str
    accuracy: Accuracy
    settings: Settings | None = None  # None: before the registration
    seconds: float = 0.0
    step_seconds: float = 0.0  # of one step on the finest level
    step_bytes: int = 0  # the most that one such step holds beyond what is there before it


def accuracy(displacement: Tensor, problem: Problem) -> Accuracy:
    error = target_registration_error(displacement, problem.known.truth)[problem.brain]
    determinant = jacobian_determinant(displacement, problem.spacing)[problem.brain]
    ordered = error.sort().values
    return Accuracy(
        tre_mean=error.mean().item(),
        tre_95=ordered[round(0.95 * (len(ordered) - 1))].item(),
        tre_max=ordered[-1].item(),
        folded=(determinant <= 0).float().mean().item(),
    )


def before(pair: str, problem: Problem) -> Result:
    """No displacement at all."""
    return Result(pair, "before", accuracy(torch.zeros_like(problem.known.truth), problem))


def run(pair: str, problem: Problem, settings: Settings, levels: int) -> tuple[Result, Tensor]:
    """The numbers of a registration, and its displacement."""
    images = pyramid(problem.fixed, problem.moving, problem.brain, problem.spacing, levels)
    method = LOSSES[settings.loss] + (f", {settings.backend}" if settings.loss == "ngf" else "")
    Descent(images[0], None, settings).step()  # what is done once is done outside the times
    with tqdm(total=levels * settings.steps, desc=method, unit="step", leave=False) as bar:
        finest: list[float] = []

        def after_step() -> None:
            finest.append(time.perf_counter())
            bar.update()

        start = time.perf_counter()
        descent = register(images, settings, after_step)
        seconds = time.perf_counter() - start
    with torch.no_grad():
        displacement = descent.displacement()
    # Half of the finest level's steps: the first ones of a level allocate.
    last = finest[-1 - settings.steps // 2 :]
    return (
        Result(
            pair,
            method,
            accuracy(displacement, problem),
            settings,
            seconds,
            (last[-1] - last[0]) / max(1, len(last) - 1),
            # The rate is 0 by now: one more step changes nothing.
            peak_memory(descent.step),
        ),
        displacement,
    )
