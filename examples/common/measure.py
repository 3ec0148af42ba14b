# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The time and the memory of calls, for example of losses and their gradients."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

# Otherwise the profiler announces every start and stop on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

LossFunction = Callable[[Tensor, Tensor], Tensor]


def loss_and_gradient(
    function: LossFunction, input: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the loss and its gradient by ``input``, which a training step asks for."""
    input = input.detach().requires_grad_()
    loss = function(input, target)
    (gradient,) = torch.autograd.grad(loss, input)
    return loss.detach(), gradient


@torch.no_grad()
def forward_only(function: LossFunction, input: Tensor, target: Tensor) -> Tensor:
    """Compute the loss alone, as in validation."""
    return function(input, target)


def median_times(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    after_round: Callable[[], object] = lambda: None,
) -> list[float]:
    """Measure median times in ms; the calls take turns, so that all meet the same machine."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, record in zip(calls, times, strict=True):
            start = time.perf_counter()
            result = call()
            record.append(1e3 * (time.perf_counter() - start))
            del result  # this frees the result outside the measured time
        after_round()
    return [statistics.median(record) for record in times]


def peak_memory(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Count the bytes that PyTorch holds at the worst moment of a call, less those before it."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # a block from the cache may be larger than the request
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
