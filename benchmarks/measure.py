# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""How time and memory are measured (the method is described in README.md beside this file)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# Otherwise the profiler announces every start and stop on stderr.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

LossFunction = Callable[[Tensor, Tensor], Tensor]


def loss_and_gradient(
    function: LossFunction, input: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient by ``input``, which is what a training step asks for."""
    input = input.detach().requires_grad_()
    loss = function(input, target)
    (gradient,) = torch.autograd.grad(loss, input)
    return loss.detach(), gradient


@torch.no_grad()
def forward_only(function: LossFunction, input: Tensor, target: Tensor) -> Tensor:
    """The loss alone, as in validation."""
    return function(input, target)


def seconds(call: Callable[[], object]) -> float:
    """Duration of one call. What it returns is freed outside."""
    start = time.perf_counter()
    result = call()
    duration = time.perf_counter() - start
    del result
    return duration


class ColdGpu:
    """Times calls on a GPU whose cache holds nothing of theirs and that has work to go on with."""

    def __init__(self, cache_bytes: int = 2**28, cycles: int = 4_000_000) -> None:
        self.filler = torch.zeros(cache_bytes // 4, device="cuda")
        self.cycles = cycles  # about 2 ms, in which the host gets ahead

    def seconds(self, call: Callable[[], object]) -> float:
        """Time of the GPU for one call, by events: what the host does meanwhile is not in it."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.filler.sum()  # read, not written: nothing is left to be written back
        torch.cuda._sleep(self.cycles)
        start.record()
        result = call()
        end.record()
        end.synchronize()
        del result
        return start.elapsed_time(end) / 1e3


def seconds_until_done(call: Callable[[], object]) -> float:
    """Time until an idle GPU has done what one call asks for, the work of the host included."""

    def call_and_wait() -> object:
        result = call()
        torch.cuda.synchronize()
        return result

    torch.cuda.synchronize()
    return seconds(call_and_wait)


def seconds_of_host(call: Callable[[], object]) -> float:
    """Time until one call returns, its work enqueued on an idle GPU."""
    torch.cuda.synchronize()
    return seconds(call)


def median_times(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    after_round: Callable[[], object] = lambda: None,
    clock: Callable[[Callable[[], object]], float] = seconds,
) -> list[float]:
    """Milliseconds of each call; all have their turn in each round and meet the same machine."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, record in zip(calls, times, strict=True):
            record.append(1e3 * clock(call))
        after_round()
    return [statistics.median(record) for record in times]


def peak_memory(call: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Bytes that PyTorch holds on a device at the worst moment of a call, less those before it."""
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()  # a block from the cache may be larger than what is asked for
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


def saved_memory(function: LossFunction, input: Tensor, target: Tensor) -> int:
    """Bytes kept between forward and backward, besides the images themselves."""
    images = {input.untyped_storage().data_ptr(), target.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in images:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = function(input.detach().requires_grad_(), target)
    total = sum(kept.values())
    del loss
    return total


def kernels(call: Callable[[], object]) -> list[str]:
    """What a call makes the GPU do, by name: kernels, and copies and fills of memory."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return [event.name for event in profiler.events() if event.device_type == DeviceType.CUDA]
