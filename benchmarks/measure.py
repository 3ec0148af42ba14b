# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Clocks and counters of memory; README.md beside this file describes the method."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from examples.common.measure import LossFunction


class Meter(NamedTuple):
    """A timer, whose instants differ by numbers of seconds, and a preparation of each call."""

    timer: Callable[[], Any] = time.perf_counter
    prepare: Callable[[], object] = lambda: None  # before each call, outside its time


def meters(device: str) -> dict[str, Meter]:
    """Return the clocks of a device, by name.

    On a GPU, ``device`` is the GPU's own time, ``done`` runs from the call until an idle GPU has
    done the work, and ``host`` runs until the call returns. On a CPU these three are one.
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
    """Measure the duration of one call; its result is freed outside the time."""
    meter.prepare()
    start = meter.timer()
    result = call()
    end = meter.timer()
    del result
    return float(end - start)


class GpuInstant:
    """An instant on a GPU: an event on the current stream."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, start: GpuInstant) -> float:
        self.event.synchronize()
        return start.event.elapsed_time(self.event) / 1e3


class ColdGpu:
    """A preparation that empties a GPU's cache of the images and keeps the GPU busy."""

    def __init__(self, cache_bytes: int = 2**28, cycles: int = 4_000_000) -> None:
        self.filler = torch.zeros(cache_bytes // 4, device="cuda")
        self.cycles = cycles  # about 2 ms, in which the host enqueues the call

    def prepare(self) -> None:
        """Enqueue work before a call, so that the call's time does not depend on the host."""
        self.filler.sum()  # a read leaves nothing that has to be written back
        torch.cuda._sleep(self.cycles)


def _instant_without_work() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def saved_memory(function: LossFunction, input: Tensor, target: Tensor) -> int:
    """Count the bytes kept between forward and backward, besides the images themselves."""
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
    """Return the names of the kernels, copies and fills that a call makes the GPU run."""
    torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    # Without acc_events torch 2.11 warns that a second cycle starts empty, but there is only one.
    with profile(activities=activities, acc_events=True) as profiler:
        call()
        torch.cuda.synchronize()
    return [event.name for event in profiler.events() if event.device_type == DeviceType.CUDA]
