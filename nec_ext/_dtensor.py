# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""DTensor: from placements to groups, and the ops' sharding rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

from . import _ops
from ._arguments import CHOICES


class Split(NamedTuple):
    """An axis of the images that the ranks of a group share."""

    group: dist.ProcessGroup | None
    dim: int


def splits_of(input: DTensor) -> list[Split]:
    """Return the axes that a DTensor splits, of which at most one is spatial."""
    mesh, splits = input.device_mesh, []
    if mesh.get_coordinate() is None:
        raise ValueError(f"input must be on a mesh that has this rank, got {mesh}")
    for axis, placement in enumerate(input.placements):
        if type(placement) is Shard:  # of which a strided one is a subclass in some versions
            splits.append(Split(mesh.get_group(axis), placement.dim))
        elif not placement.is_replicate():
            raise ValueError(f"input must be placed by Shard and Replicate, got {placement}")
    spatial = [split.dim for split in splits if split.dim >= 2]
    if len(spatial) > 1:
        raise ValueError(f"input must be split along one spatial axis, got {spatial}")
    return splits


def local_part(name: str, value: Any, input: Any) -> Any:
    """Return the rank's part of a DTensor that is placed as the input is; or the value itself.

    The part has the gradient of the DTensor at this rank. A map that is constant along an axis may
    be replicated where the input is split.
    """
    if not isinstance(value, DTensor):
        if name == "target" and isinstance(value, Tensor) and isinstance(input, DTensor):
            raise TypeError("target must be a DTensor, as input is")
        return value
    if not isinstance(input, DTensor):
        raise TypeError(f"{name} must not be a DTensor, as input is none")
    for own, placement in zip(value.placements, input.placements, strict=False):
        missing = input.dim() - value.dim()
        same = isinstance(placement, Shard) and own == Shard(placement.dim - missing)
        broadcast = name not in ("input", "target") and own.is_replicate()
        if not (own == placement or same or broadcast):
            raise ValueError(
                f"{name} must be placed as input is, {input.placements}, got {value.placements}"
            )
    if value.device_mesh != input.device_mesh:
        raise ValueError(f"{name} must be on the mesh of input, {input.device_mesh}")
    return value.to_local(grad_placements=value.placements)


# -------------------------------------------------------------------------------------------------
# The plain loss of DTensors
# -------------------------------------------------------------------------------------------------


def _shardings(op: Any, images: int, results: Callable[[dict[str, Any], Any], list[Any]]) -> None:
    """Register that samples and channels may be split: each of them has its own loss.

    Args:
        op: the op.
        images: the position of ``input`` among its arguments.
        results: a function from the arguments and the placement of the images to the placements
            of the results, or to [] where the op cannot run on such images.
    """
    names = [argument.name for argument in op._schema.arguments]

    def rule(*values: Any) -> list[tuple[list[Any], list[Any]]]:
        arguments = dict(zip(names, values, strict=True))
        shape, mesh = values[images].shape, values[images].mesh
        acceptable = []
        for wanted in (Replicate(), Shard(0), Shard(1)):
            if isinstance(wanted, Shard) and any(
                _leaves_empty(shape[wanted.dim], ranks) for ranks in mesh.shape
            ):
                continue
            outputs = results(arguments, wanted)
            inputs: list[Any] = []
            for value in values:
                if not hasattr(value, "placements"):
                    inputs.append(None)
                    continue
                missing = len(shape) - len(value.shape)
                own = wanted.dim - missing if isinstance(wanted, Shard) else -1
                split = own >= 0 and value.shape[own] > 1
                inputs.append(Shard(own) if split else Replicate())
            if outputs:
                acceptable.append((outputs, inputs))
        return acceptable

    register_sharding(op)(rule)


def _leaves_empty(count: int, ranks: int) -> bool:
    """Return whether the last rank is empty where every rank takes ceil(count / ranks) items."""
    return -(-count // ranks) * (ranks - 1) >= count


def _forward_results(arguments: dict[str, Any], images: Any) -> list[Any]:
    reduction = CHOICES["reduction"][arguments["reduction"]]
    if reduction == "mean" and images != Replicate():
        return []  # every rank would divide by its own voxels
    reduced = images if reduction == "none" or images == Replicate() else Partial("sum")
    wanted = [arguments["input_grad"], arguments["target_grad"]]
    gradients = [images if w and reduction != "none" else Replicate() for w in wanted]
    return [reduced, *gradients, Replicate()]


def _backward_results(arguments: dict[str, Any], images: Any) -> list[Any]:
    wanted = list(arguments.values())[-2:]
    return [images if w else Replicate() for w in wanted]


if _ops.extension is not None:
    _shardings(_ops.ngf_forward, 0, _forward_results)
    _shardings(_ops.ngf_backward, 1, _backward_results)
    _shardings(_ops.ngf_eps_backward, 1, _backward_results)
