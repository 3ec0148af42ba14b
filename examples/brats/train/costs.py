# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What a training takes: the time of a loss, the peak of memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

REPEATS = 3  # on a busy machine the fastest is the truest


def loss_milliseconds(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, precision: torch.dtype
) -> float:
    """The time of a loss of two images, of its value and its gradient by the first one.

    Args:
        loss: of a generated image and its source.
        images: for both of them.
        precision: of the generated one.
    """

    def once() -> float:
        first = images.to(precision, copy=True).requires_grad_()
        wait(images.device)
        start = time.perf_counter()
        loss(first, images).backward()
        wait(images.device)
        return 1e3 * (time.perf_counter() - start)

    once()  # caches, and what is compiled
    return min(once() for _ in range(REPEATS))


def loss_megabytes(
    loss: Callable[[Tensor, Tensor], Tensor], images: Tensor, precision: torch.dtype
) -> float:
    """The memory that the same takes on a GPU beside its two images, at most."""
    first = images.to(precision, copy=True).requires_grad_()
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    loss(first, images).backward()
    return peak_megabytes(images.device) - before / 2**20


def peak_megabytes(device: torch.device) -> float:
    """The most that tensors have taken on a GPU; on the CPU, that the process has."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def in_words(costs: Mapping[str, float], loss: str) -> str:
    """What a step took; ``loss`` is the backend of the NGF loss."""
    share = f", of them {costs['loss_ms']:.3g} ms the {loss} loss" if "loss_ms" in costs else ""
    return f"{costs['step_ms']:.4g} ms per step{share}; at most {costs['memory_mb']:.0f} MB"


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
