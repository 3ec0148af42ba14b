# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A registration, and the numbers by which it is judged."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..common.measure import peak_memory
from .images import Problem
from .register import LOSSES, Descent, Settings, pyramid, register
from .warp import jacobian_determinant, target_registration_error


@dataclass(frozen=True)
class Accuracy:
    """The errors of a displacement over the brain of the fixed image."""

    tre_mean: float  # mm
    tre_95: float  # mm, percentile
    tre_max: float  # mm
    shift: float  # mm, length of the mean error; a shift of T1 to T2 before the warp counts too
    folded: float  # share of the voxels in which the Jacobian determinant is not positive


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    pair: str
    method: str
    accuracy: Accuracy
    settings: Settings | None = None  # None before the registration
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads, which does not depend on other work of the machine
    step_cpu_seconds: float = 0.0  # for a step on the finest level
    step_bytes: int = 0  # the peak of memory during such a step, less the memory before it


def accuracy(displacement: Tensor, problem: Problem) -> Accuracy:
    error = target_registration_error(displacement, problem.known.truth)[problem.brain]
    determinant = jacobian_determinant(displacement, problem.spacing)[problem.brain]
    ordered = error.sort().values
    return Accuracy(
        tre_mean=error.mean().item(),
        tre_95=ordered[round(0.95 * (len(ordered) - 1))].item(),
        tre_max=ordered[-1].item(),
        shift=(displacement - problem.known.truth)[0][:, problem.brain[0, 0]].mean(1).norm().item(),
        folded=(determinant <= 0).float().mean().item(),
    )


def before(pair: str, problem: Problem) -> Result:
    """Judge a pair before its registration, without any displacement."""
    return Result(pair, "before", accuracy(torch.zeros_like(problem.known.truth), problem))


def run(pair: str, problem: Problem, settings: Settings, levels: int) -> tuple[Result, Tensor]:
    """Register, and return the numbers of the registration and its displacement."""
    images = pyramid(problem.fixed, problem.moving, problem.brain, problem.spacing, levels)
    method = LOSSES[settings.loss] + (f", {settings.backend}" if settings.loss == "ngf" else "")
    Descent(images[0], None, settings).step()  # the first step does work that must not be timed
    ends: list[float] = []  # the CPU times at which the steps end
    with tqdm(total=levels * settings.steps, desc=method, unit="step", leave=False) as bar:

        def after_step() -> None:
            ends.append(time.process_time())
            bar.update()

        start, cpu_start = time.perf_counter(), time.process_time()
        descent = register(images, settings, after_step)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    finest = np.diff(ends[-settings.steps :])
    with torch.no_grad():
        displacement = descent.displacement()
    result = Result(
        pair,
        method,
        accuracy(displacement, problem),
        settings,
        seconds,
        cpu_seconds,
        float(np.median(finest)) if len(finest) else cpu_seconds,
        # The rate is 0 by now, so that another step changes nothing.
        peak_memory(descent.step),
    )
    return result, displacement
