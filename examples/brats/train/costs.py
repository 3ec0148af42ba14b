# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The costs of a training: the time of a loss, and the peak of memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

REPEATS = 3  # the fastest counts, as other work on the machine only adds time


def loss_milliseconds(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, precision: torch.dtype
) -> float:
    """Measure the time of a loss of two images and of its gradient by the first one.

    Args:
        loss: the loss of a generated image and its source.
        images: images that take the place of both.
        precision: the dtype of the generated image.
    """

    def once() -> float:
        first = images.to(precision, copy=True).requires_grad_()
        wait(images.device)
        start = time.perf_counter()
        loss(first, images).backward()
        wait(images.device)
        return 1e3 * (time.perf_counter() - start)

    once()  # the first call fills caches and may compile
    return min(once() for _ in range(REPEATS))


def loss_megabytes(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, precision: torch.dtype
) -> float:
    """Measure the peak memory of a loss and its gradient on a GPU, beside the two images."""
    first = images.to(precision, copy=True).requires_grad_()
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    loss(first, images).backward()
    return peak_megabytes(images.device) - before / 2**20


def peak_megabytes(device: torch.device) -> float:
    """Return the peak memory of the tensors on a GPU, or of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def format_costs(costs: Mapping[str, float], loss: str) -> str:
    """Format the costs of a step; ``loss`` is the backend of the NGF loss."""
    share = f", of them {costs['loss_ms']:.3g} ms the {loss} loss" if "loss_ms" in costs else ""
    return f"{costs['step_ms']:.4g} ms per step{share}; at most {costs['memory_mb']:.0f} MB"


def wait(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
