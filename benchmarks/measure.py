# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""How time and memory are measured (the method is described in README.md beside this file)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


class Meter(NamedTuple):
    """How calls are timed: what lies between two instants of the timer is a number of seconds."""

    timer: Callable[[], Any] = time.perf_counter
    prepare: Callable[[], object] = lambda: None  # before each call, outside its time


def meters(device: str) -> dict[str, Meter]:
    """The clocks of a device, by name.

    On a GPU ``device`` is its own time, ``done`` runs from the call until an idle GPU has done the
    work, and ``host`` until the call returns. On a CPU all of that is one.
    """
    if device == "cpu":
        return {"device": CPU}
    return {
        "device": Meter(GpuInstant, ColdGpu().prepare),
        "done": Meter(_instant_without_work),
        "host": Meter(time.perf_counter, torch.cuda.synchronize),
    }


CPU = Meter()


def seconds(call: Callable[[], object], meter: Meter = CPU) -> float:
    """Duration of one call. What it returns is freed outside."""
    meter.prepare()
    start = meter.timer()
    result = call()
    end = meter.timer()
    del result
    return float(end - start)


class GpuInstant:
    """An event on the current stream."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, start: GpuInstant) -> float:
        self.event.synchronize()
        return start.event.elapsed_time(self.event) / 1e3


class ColdGpu:
    """A GPU whose cache holds nothing of the images and that has work to go on with."""

    def __init__(self, cache_bytes: int = 2**28, cycles: int = 4_000_000) -> None:
        self.filler = torch.zeros(cache_bytes // 4, device="cuda")
        self.cycles = cycles  # about 2 ms, in which the host gets ahead

    def prepare(self) -> None:
        """Enqueues what comes before a call, so that its time does not depend on the host."""
        self.filler.sum()  # read, not written: nothing is left to be written back
        torch.cuda._sleep(self.cycles)


def _instant_without_work() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def median_times(
    calls: Sequence[Callable[[], object]],
    rounds: int,
    after_round: Callable[[], object] = lambda: None,
) -> list[float]:
    """Milliseconds of each call; all have their turn in each round and meet the same machine."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, record in zip(calls, times, strict=True):
            record.append(1e3 * seconds(call))
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
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    # Otherwise torch 2.11 warns that a second cycle, which there is none of, would start empty.
    with profile(activities=activities, acc_events=True) as profiler:
        call()
        torch.cuda.synchronize()
    return [event.name for event in profiler.events() if event.device_type == DeviceType.CUDA]
