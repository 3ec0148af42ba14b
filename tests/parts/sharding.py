# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Processes with a gloo group, and the code that they run: importable without the test files."""

import contextlib
import os
import re
import signal
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import Result, allocations, evaluate
from inputs import Pair, Shape
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import nec_ext
from benchmarks.traffic import counted

Options = dict[str, Any]
TIMEOUT = 60  # seconds for a call; what hangs fails
START_TIMEOUT = 300  # on a machine that is busy with other things
_groups: dict[int, dist.ProcessGroup] = {}
_meshes: dict[tuple[int, ...], DeviceMesh] = {}


def _join(rank: int, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=START_TIMEOUT)
    dist.init_process_group("gloo", f"file://{folder}/store", limit, rank=rank, world_size=count)


class Ranks:
    """Processes that stay for as many calls as the tests have; one takes a few milliseconds.

    They are forked from one process that has imported torch.
    """

    def __init__(self, count: int, folder: Path) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(["torch.distributed.tensor", "torch._dynamo"])
        self._pools = [
            ProcessPoolExecutor(1, context, _join, (rank, count, str(folder)))
            for rank in range(count)
        ]
        self._pids = [call.result(START_TIMEOUT) for call in self._calls(os.getpid)]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [call.result(TIMEOUT) for call in self._calls(function, *arguments)]

    def errors(self, function: Callable[..., Any], *arguments: Any) -> list[str]:
        """Return the errors of all ranks, None of one that has raised none."""
        errors = [call.exception(TIMEOUT) for call in self._calls(function, *arguments)]
        return [error and f"{type(error).__name__}: {error}" for error in errors]

    def _calls(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [pool.submit(function, *arguments) for pool in self._pools]

    def close(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):  # of one that has died
                os.kill(pid, signal.SIGKILL)
        for pool in self._pools:
            pool.shutdown()


class Subclass(Tensor):
    """A subclass that has no methods of its own."""


def part_of(tensor: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """Return this rank's planes; all of a map that has only one."""
    if tensor.shape[dim] == 1 and sum(sizes) > 1:
        return tensor
    return tensor.split(list(sizes), dim)[dist.get_rank()]


def split_loss(
    images: Pair, sizes: Shape, dim: int, upstream: Tensor, wanted: Any, options: Options
) -> Result | None:
    """Return loss and gradients of this rank's part; ranks beyond the group have none."""
    rank, count = dist.get_rank(), len(sizes)
    if count not in _groups:  # which all ranks make, also those beyond it
        _groups[count] = dist.new_group(list(range(count)))
    if rank >= count:
        return None
    own = {
        name: part_of(value, sizes, dim) if isinstance(value, Tensor) else value
        for name, value in options.items()
    }
    return evaluate(
        nec_ext.distributed.ngf_loss,
        *(part_of(image, sizes, dim) for image in images),
        upstream,
        wanted if isinstance(wanted, str) else wanted[rank],
        group=_groups[count],
        dim=dim,
        **own,
    )


def call_with(arguments: Sequence[tuple[Any, Any, Options]], default_device: str = "cpu") -> float:
    """Return the loss of arguments that are each rank's own."""
    input, target, options = arguments[dist.get_rank()]
    with torch.device(default_device):
        loss: Tensor = nec_ext.distributed.ngf_loss(input, target, **options)
    return loss.item()


def check_that_nothing_is_held(shape: Shape, times: int) -> None:
    """Check that input, target and mask do not outlive some calls of backward."""
    made = 2 * torch.rand(shape, requires_grad=True)  # a leaf belongs to its user
    images = [made, torch.rand(shape), torch.rand(shape)]
    alive = [weakref.ref(image) for image in images]
    loss = nec_ext.distributed.ngf_loss(images[0], images[1], mask=images[2])
    for left in reversed(range(times)):
        loss.backward(retain_graph=left > 0)
    del made
    images.clear()
    assert [image() for image in alive] == [None] * 3


def fail_in_rank_1(shape: Shape, dies: bool) -> float:
    """Fail in rank 1 while the others compute a loss, in a group with little patience."""
    group = dist.new_group(timeout=timedelta(seconds=3))
    dist.barrier()
    if dist.get_rank() == 1:
        if dies:
            os._exit(1)
        raise ArithmeticError("somewhere else, as a training does")
    loss: Tensor = nec_ext.distributed.ngf_loss(torch.rand(shape), torch.rand(shape), group=group)
    return loss.item()


def traffic(shape: Shape, options: Options) -> dict[str, dict[str, list[int]]]:
    """Count the bytes that forward and backward hand to torch.distributed."""
    input, target = torch.rand(shape).requires_grad_(), torch.rand(shape)
    with counted() as forward:
        loss = nec_ext.distributed.ngf_loss(input, target, **options)
    with counted() as backward:
        loss.backward()
    return {"forward": forward, "backward": backward}


def memory(shape: Shape, wanted: str) -> tuple[int, int]:
    """Return peak and final bytes of a training step with maps above those before."""
    images = [torch.rand(shape) for _ in range(2)]
    maps = {name: torch.rand(shape) + 0.1 for name in ("eps", "target_eps", "mask")}
    loss = nec_ext.distributed.ngf_loss
    if wanted == "neither":
        return allocations(lambda: loss(*images, **maps))[:2]
    return allocations(lambda: evaluate(loss, *images, 2.0, wanted, **maps))[:2]


def check_gradients_again() -> None:
    """Gradients are right one by one and at once, before and after; second order is refused."""
    input = torch.linspace(0, 1, 210).view(1, 1, 7, 6, 5).sin().requires_grad_()
    loss = nec_ext.distributed.ngf_loss(input, input.detach().flip(2).exp())
    upstreams = torch.tensor([1.0, -3.0, 0.5])

    def gradient(upstream: Tensor, **how: bool) -> Tensor:
        return torch.autograd.grad(loss, input, upstream, retain_graph=True, **how)[0].clone()

    first = gradient(upstreams, is_grads_batched=True)
    single = torch.stack([gradient(upstream) for upstream in upstreams])
    again = gradient(upstreams, is_grads_batched=True)
    assert single[0].abs().max() > 0
    scaled = torch.stack([single[0] * upstream for upstream in upstreams])
    for found in (first, single, again):
        torch.testing.assert_close(found, scaled, rtol=1e-6, atol=1e-9)
    with pytest.raises(RuntimeError, match="cannot be differentiated"):
        gradient(upstreams[0], create_graph=True)


def transformed(transform: str, check: bool) -> None:
    """Compute the loss under a transform of torch.func."""
    image = torch.rand(2, 1, 4, 5, 6)

    def loss(input: Tensor) -> Tensor:
        result: Tensor = nec_ext.distributed.ngf_loss(input, image, check=check)
        return result

    getattr(torch.func, transform)(loss)(image)


def with_backends(having: Sequence[dict[str, str]], check: bool) -> None:
    """Compute the loss on the CPU where each rank's group is said to have these backends."""
    image, own = torch.rand(1, 1, 4, 4), having[dist.get_rank()]
    with mock.patch("nec_ext.distributed.backends_of", return_value=own):
        nec_ext.distributed.ngf_loss(image, image, check=check)


def mesh_of(*shape: int) -> DeviceMesh:
    if shape not in _meshes:
        names = ("data", "space")[: len(shape)]
        _meshes[shape] = init_device_mesh("cpu", shape, mesh_dim_names=names)
    return _meshes[shape]


def distributed_tensors(
    images: Pair, mesh_shape: Shape, dims: Sequence[int | None], options: Options, plain: bool
) -> tuple[float, Tensor, Tensor, bool]:
    """Return loss and whole gradients of DTensors; with ``plain`` of nec_ext.ngf_loss."""
    mesh = mesh_of(*mesh_shape)
    placements = [Replicate() if dim is None else Shard(dim) for dim in dims]

    def placed(tensor: Tensor) -> DTensor:
        own = [
            p if isinstance(p, Shard) and tensor.shape[p.dim] > 1 else Replicate()
            for p in placements
        ]
        return distribute_tensor(tensor, mesh, own)

    leaves = [placed(image).requires_grad_() for image in images]
    maps = {name: placed(v) if isinstance(v, Tensor) else v for name, v in options.items()}
    loss = (nec_ext if plain else nec_ext.distributed).ngf_loss(*leaves, **maps)
    loss.backward()
    whole = loss.full_tensor() if isinstance(loss, DTensor) else loss
    kept = all(list(leaf.grad.placements) == placements for leaf in leaves)
    return whole.item(), *(leaf.grad.full_tensor() for leaf in leaves), kept


def wrong_on_two_axes(kind: str) -> None:
    """Split samples and planes of a DTensor, with something wrong on the last rank."""
    mesh, image = mesh_of(2, 2), torch.linspace(-1, 1, 240).view(4, 1, 6, 10)
    last = dist.get_rank() == 3
    input = distribute_tensor(image, mesh, [Shard(0), Shard(2)])
    options: Options = {}
    if kind == "option":
        options["operator"] = "prewitt" if last else "central"
    elif kind == "values":
        mask = input.to_local().square() * (-1 if last else 1)
        options["mask"] = DTensor.from_local(mask, mesh, input.placements)
    else:  # a sample less, which the ranks of the same planes may have
        samples = input.to_local()[: 1 if last else 2]
        input = DTensor.from_local(samples, mesh, input.placements)
    nec_ext.distributed.ngf_loss(input, input, **options)


def refuse_distributed_tensors() -> None:
    mesh, image = mesh_of(3), torch.rand(3, 1, 6, 6)
    split, across, whole = (
        distribute_tensor(image, mesh, [placement])
        for placement in (Shard(2), Shard(3), Replicate())
    )
    partial = DTensor.from_local(image, mesh, [Partial()])
    nobody = distribute_tensor(image[:2], mesh, [Shard(0)])
    backwards = DTensor.from_local(split.to_local(), DeviceMesh("cpu", [2, 1, 0]), [Shard(2)])
    cases: list[tuple[Any, Any, Options, str]] = [
        (split, split, {"group": dist.group.WORLD}, "group must be left out"),
        (split, split, {"dim": 3}, "dim must be left out"),
        (split, image, {}, "target must be a DTensor"),
        (split, backwards, {}, "target must be on the mesh of input"),
        (partial, partial, {}, "input must be placed by Shard and Replicate, got P"),
        (image, split, {}, "target must not be a DTensor, as input is none"),
        (image, image, {"mask": split}, "mask must not be a DTensor, as input is none"),
        (split, across, {}, "target must be placed as input is"),
        (split, whole, {}, "target must be placed as input is"),
        (split, split, {"reduction": "none"}, "reduction must be 'mean' or 'sum'"),
        (nobody, nobody, {}, "input must not be empty"),
    ]
    for input, target, options, sentence in cases:
        with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
            nec_ext.distributed.ngf_loss(input, target, **options)


def on_a_mesh_of_two() -> None:
    image = distribute_tensor(torch.rand(3, 1, 6, 6), DeviceMesh("cpu", [0, 1]), [Shard(2)])
    nec_ext.distributed.ngf_loss(image, image)
