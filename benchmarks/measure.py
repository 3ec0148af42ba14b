# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""How time and memory are measured (the method is described in README.md beside this file)."""

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
