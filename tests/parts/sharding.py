# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the ranks of test_distributed.py are told to do: importable without that file."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from helpers import Result, allocations, evaluate
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

import nec_ext
from benchmarks.traffic import counted
from nec_ext._agreement import backends_of

Options = dict[str, Any]
_groups: dict[int, dist.ProcessGroup] = {}
_meshes: dict[tuple[int, ...], DeviceMesh] = {}
MAPS = ("eps", "target_eps", "mask")


def group_of(count: int) -> dist.ProcessGroup | None:
    """Return the group of the first ranks, which every rank makes once."""
    if count not in _groups:
        _groups[count] = dist.new_group(list(range(count)))
    return _groups[count] if dist.get_rank() < count else None


def part_of(tensor: Tensor, sizes: Sequence[int], dim: int) -> Tensor:
    """Return this rank's planes; all of a map that has only one."""
    if tensor.shape[dim] == 1 and sum(sizes) > 1:
        return tensor
    return tensor.split(list(sizes), dim)[dist.get_rank()]


def parts_of(options: Options, sizes: Sequence[int], dim: int) -> Options:
    return {
        name: part_of(value, sizes, dim) if isinstance(value, Tensor) else value
        for name, value in options.items()
    }


def split_loss(
    images: tuple[Tensor, Tensor],
    sizes: Sequence[int],
    dim: int,
    upstream: Tensor,
    wanted: str,
    options: Options,
) -> Result | None:
    """Return loss and gradients of this rank's part; ranks beyond the group have none."""
    group = group_of(len(sizes))
    if group is None:
        return None
    parts = [part_of(image, sizes, dim) for image in images]
    options = {"group": group, "dim": dim, **parts_of(options, sizes, dim)}
    return evaluate(nec_ext.distributed.ngf_loss, *parts, upstream, wanted, **options)


def some_gradients(images: tuple[Tensor, Tensor], upstream: Tensor) -> Result:
    """Ask for the gradient of the input on rank 0, none on rank 1, of the target on rank 2."""
    rank = dist.get_rank()
    parts = [part_of(image, (4, 4, 5), 2) for image in images]
    if rank == 1:
        with torch.no_grad():
            leaves = [part.requires_grad_() for part in parts]
            return Result(nec_ext.distributed.ngf_loss(*leaves), None, None)
    wanted = "input" if rank == 0 else "target"
    return evaluate(nec_ext.distributed.ngf_loss, *parts, upstream, wanted)


def call_with(arguments: Sequence[tuple[Any, Any, Options]]) -> float:
    """Return the loss of arguments that are each rank's own."""
    input, target, options = arguments[dist.get_rank()]
    loss: Tensor = nec_ext.distributed.ngf_loss(input, target, **options)
    return loss.item()


def held_after_backward(shape: tuple[int, ...], times: int) -> list[bool]:
    """Return whether input, target and mask outlive some calls of backward."""
    made = 2 * torch.rand(shape, requires_grad=True)  # a leaf belongs to its user
    images = [made, torch.rand(shape), torch.rand(shape)]
    alive = [weakref.ref(image) for image in images]
    loss = nec_ext.distributed.ngf_loss(images[0], images[1], mask=images[2])
    for left in reversed(range(times)):
        loss.backward(retain_graph=left > 0)
    del made
    images.clear()
    return [image() is not None for image in alive]


def fail_in_rank_1(shape: tuple[int, ...], how: str) -> float:
    """Fail in rank 1 while the others compute a loss, in a group with little patience."""
    group = dist.new_group(timeout=timedelta(seconds=3))
    dist.barrier()
    if dist.get_rank() == 1 and how == "dies":
        os._exit(1)
    if dist.get_rank() == 1:
        raise ArithmeticError("somewhere else, as a training does")
    loss: Tensor = nec_ext.distributed.ngf_loss(torch.rand(shape), torch.rand(shape), group=group)
    return loss.item()


def traffic(shape: tuple[int, ...], options: Options) -> dict[str, dict[str, list[int]]]:
    """Count the bytes that forward and backward hand to torch.distributed."""
    input, target = torch.rand(shape).requires_grad_(), torch.rand(shape)
    with counted() as forward:
        loss = nec_ext.distributed.ngf_loss(input, target, **options)
    with counted() as backward:
        loss.backward()
    return {"forward": forward, "backward": backward}


def memory(shape: tuple[int, ...], wanted: str, options: Options) -> tuple[int, int]:
    """Return peak and final bytes of a training step with maps above those before."""
    images = [
        torch.rand(shape, requires_grad=wanted in (name, "both", "neither"))
        for name in ("input", "target")
    ]
    maps = {name: torch.rand(shape) + 0.1 for name in MAPS}

    def step() -> Any:
        with torch.set_grad_enabled(wanted != "neither"):
            loss = nec_ext.distributed.ngf_loss(*images, **maps, **options)
        if wanted == "neither":
            return loss
        return torch.autograd.grad(2 * loss, [image for image in images if image.requires_grad])

    return allocations(step)[:2]


def gradients_again(
    shape: tuple[int, ...], dtype: torch.dtype, upstreams: Tensor
) -> tuple[Tensor, Tensor, Tensor, str]:
    """Return gradients at once, one by one and at once again, and the error of second order."""
    input = torch.linspace(0, 1, torch.Size(shape).numel()).view(shape).sin().to(dtype)
    input.requires_grad_()
    loss = nec_ext.distributed.ngf_loss(input, input.detach().flip(2).exp())

    def gradient(upstream: Tensor, **how: bool) -> Tensor:
        return torch.autograd.grad(loss, input, upstream, retain_graph=True, **how)[0].clone()

    first = gradient(upstreams, is_grads_batched=True)
    single = torch.stack([gradient(upstream) for upstream in upstreams])
    again = gradient(upstreams, is_grads_batched=True)
    try:
        gradient(upstreams[0], create_graph=True)
    except RuntimeError as error:
        return first, single, again, str(error)
    return first, single, again, "nothing"


def transformed(shape: tuple[int, ...], transform: str, check: bool) -> None:
    """Compute the loss under a transform of torch.func."""
    image = torch.rand(shape)

    def loss(input: Tensor) -> Tensor:
        result: Tensor = nec_ext.distributed.ngf_loss(input, image, check=check)
        return result

    if transform == "vmap":
        torch.func.vmap(loss)(torch.rand(2, *shape))
    elif transform == "grad":
        torch.func.grad(loss)(image)
    else:
        torch.func.jvp(loss, (image,), (image,))


def with_backends(having: Sequence[dict[str, str]], check: bool) -> None:
    """Compute the loss on the CPU where each rank's group is said to have these backends."""
    image, own = torch.rand(1, 1, 4, 4), having[dist.get_rank()]
    with mock.patch("nec_ext.distributed.backends_of", return_value=own):
        nec_ext.distributed.ngf_loss(image, image, check=check)


def backends_by_device() -> list[dict[str, str]]:
    """Return the backends of groups that are asked for in three ways; compute a loss in two."""
    found = [backends_of(None)]
    for name in ("cpu:gloo,cuda:gloo", "cpu:gloo"):
        group = dist.new_group(backend=name)
        call_with([(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4), {"group": group})] * 3)
        found.append(backends_of(group))
        dist.destroy_process_group(group)
    return found


class Subclass(Tensor):
    """A subclass that has no methods of its own."""


def with_default_device(shape: tuple[int, ...]) -> float:
    """Return the loss where the default device is not that of the images."""
    image = torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)
    with torch.device("meta"):
        return call_with([(image, image, {})] * 3)


def mesh_of(*shape: int) -> DeviceMesh:
    if shape not in _meshes:
        names = ("data", "space")[: len(shape)]
        _meshes[shape] = init_device_mesh("cpu", shape, mesh_dim_names=names)
    return _meshes[shape]


def distributed_tensors(
    images: tuple[Tensor, Tensor],
    mesh_shape: tuple[int, ...],
    dims: Sequence[int | None],
    options: Options,
    plain: bool,
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
    function: Callable[..., Tensor] = nec_ext.ngf_loss if plain else nec_ext.distributed.ngf_loss
    loss = function(*leaves, **maps)
    loss.backward()
    whole = loss.full_tensor() if isinstance(loss, DTensor) else loss
    kept = all(list(leaf.grad.placements) == placements for leaf in leaves)
    return whole.item(), *(leaf.grad.full_tensor() for leaf in leaves), kept


def trained(images: tuple[Tensor, Tensor], sizes: Sequence[int]) -> tuple[float, float]:
    """Return a weight's gradient on one process, and from a DistributedDataParallel."""

    def gradient(loss: Callable[[Any], Tensor], wrap: Callable[..., Any]) -> float:
        network = torch.nn.Conv3d(1, 1, 1).double()
        torch.nn.init.constant_(network.weight, 0.7)
        torch.nn.init.constant_(network.bias, 0.1)
        wrapped = wrap(network)  # which must outlive backward
        loss(wrapped).backward()
        return network.weight.grad.item()

    parts = [part_of(image, sizes, 2) for image in images]
    split = gradient(
        lambda network: nec_ext.distributed.ngf_loss(
            network(parts[0]).tanh(), parts[1], weight=dist.get_world_size()
        ),
        torch.nn.parallel.DistributedDataParallel,
    )
    whole = gradient(
        lambda network: nec_ext.ngf_loss(network(images[0]).tanh(), images[1]),
        lambda network: network,
    )
    return whole, split


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


def on_a_mesh_of_two() -> float:
    image = distribute_tensor(torch.rand(1, 1, 6, 6), DeviceMesh("cpu", [0, 1]), [Shard(2)])
    loss: Tensor = nec_ext.distributed.ngf_loss(image, image)
    return loss.item()


def wrong_distributed_tensor(kind: str) -> None:
    mesh, image = mesh_of(dist.get_world_size()), torch.rand(3, 1, 6, 6)
    split = distribute_tensor(image, mesh, [Shard(2)])
    if kind == "group":
        nec_ext.distributed.ngf_loss(split, split, group=dist.group.WORLD)
    elif kind == "target":
        nec_ext.distributed.ngf_loss(split, image)
    elif kind == "mesh":
        turned = DTensor.from_local(split.to_local(), DeviceMesh("cpu", [2, 1, 0]), [Shard(2)])
        nec_ext.distributed.ngf_loss(split, turned)
    elif kind == "replicated":
        nec_ext.distributed.ngf_loss(split, distribute_tensor(image, mesh, [Replicate()]))
    elif kind == "partial":
        partial = DTensor.from_local(image, mesh, [Partial()])
        nec_ext.distributed.ngf_loss(partial, partial)
    elif kind == "plain":
        nec_ext.distributed.ngf_loss(image, split)
    elif kind == "plain with a map":
        nec_ext.distributed.ngf_loss(image, image, mask=split)
    elif kind == "empty":
        nobody = distribute_tensor(image[:2], mesh, [Shard(0)])
        nec_ext.distributed.ngf_loss(nobody, nobody)
    elif kind == "placements":
        nec_ext.distributed.ngf_loss(split, distribute_tensor(image, mesh, [Shard(3)]))
    else:
        nec_ext.distributed.ngf_loss(split, split, reduction=kind)
