# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""One process, or several under torchrun, that train together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # while the first process reads a thousand subjects


class Process(NamedTuple):
    """This process's rank, the number of processes, and its device; only the first one writes."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")


@contextmanager
def joined(device: str = "auto") -> Iterator[Process]:
    """Join this process with the others of torchrun, if there are others.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda needs a GPU, and a torch with CUDA")
    place = torch.device("cpu")
    if device != "cpu" and torch.cuda.is_available():
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
        torch.backends.cudnn.benchmark = True  # all images have one size
    if "WORLD_SIZE" not in os.environ:  # which torchrun sets
        yield Process(device=place)
        return
    backend = "gloo" if place.type == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Process(dist.get_rank(), dist.get_world_size(), place)
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over all processes.

    In a step of a GAN, networks run several times and some of them are frozen, before an optimizer
    takes its step. ``DistributedDataParallel`` averages during one backward pass of one network.
    Averages right before the optimizer's step are correct whatever came before.
    """
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()
    torch._foreach_div_(gradients, dist.get_world_size())


def average(value: Tensor) -> Tensor:
    """Average a value over all processes."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def first_before_others(call: Callable[[], T]) -> T:
    """Make a call in the first process, then in the others, which find its cache."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    result = call() if rank == 0 else None
    wait_for_all()
    return call() if result is None else result


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if dist.is_initialized():
        dist.barrier()


def name_of(device: torch.device) -> str:
    """Return the GPU's name, or ``"cpu"``."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def any_process(answer: bool) -> bool:
    """Return whether the answer is yes in at least one process."""
    if not dist.is_initialized():
        return answer
    votes = torch.tensor(int(answer))
    dist.all_reduce(votes)
    return votes.item() > 0


def collected(state: object) -> list[object]:
    """Gather the states of all processes by rank; only the first process gets them."""
    if not dist.is_initialized():
        return [state]
    states: list[object] = [None] * dist.get_world_size() if dist.get_rank() == 0 else []
    dist.gather_object(state, states or None)
    return states
