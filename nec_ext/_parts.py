# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Sums over a part of a volume, which the ranks of a group and the tiles of a device share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _ops, reference
from ._arguments import Options, check_option
from ._devices import warn_of_reference

# Planes on each side of a part that its gradient depends on: a voxel appears in the losses of the
# next plane, whose differences reach one plane further.
HALO = 2
TENSORS = ("input", "target", "eps", "target_eps", "mask")
Tensors = Sequence[Tensor | None]


def volume_tensors(input: Tensor, target: Tensor, o: Options) -> list[Tensor | None]:
    """Return the tensors of a call, each with as many axes as the images."""
    maps = o.tensors()
    missing = [None if m is None else (None,) * (input.dim() - m.dim()) for m in maps]
    full = [m if m is None else m[new] for m, new in zip(maps, missing, strict=True)]
    return [input, target, *full]


def check_scalar_reduction(reduction: str) -> None:
    """Raise ValueError for a reduction to more than one number, which parts do not have."""
    check_option("reduction", reduction)
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"reduction must be 'mean' or 'sum' for a volume in parts, got {reduction!r}"
        )


def check_device(name: str, device: torch.device) -> None:
    """Raise ValueError for a device that cannot add up a volume; warn of one without kernels."""
    if device.type in ("meta", "mps"):
        raise ValueError(f"{name} must be one that has values in float64, got {device}")
    warn_of_reference(device.type)


def cut(tensors: Tensors, dim: int, begin: int, end: int) -> list[Tensor | None]:
    """Return views of planes of all tensors; one that is the same for all planes stays whole."""
    return [
        t if t is None or t.shape[dim] == 1 else t.narrow(dim, begin, end - begin) for t in tensors
    ]


def sums(
    tensors: Tensors,
    o: Options,
    dim: int,
    begin: int,
    end: int,
    gradients: Tensors = (None, None),
    *,
    per_plane: bool = False,
    of_mask: bool = False,
) -> Tensor:
    """Sum ``mask * value``, or the mask, over the planes from begin to end.

    The op writes the gradients of these planes into ``gradients``. The tensors must hold two more
    planes on each side on which the volume goes on.
    """
    if tensors[0].device.type not in _ops.FUSED_DEVICES:  # type: ignore[union-attr]
        values = _values_by_reference(tensors, o, dim, begin, end, gradients, of_mask)
        values = values.double().transpose(0, dim).flatten(1).sum(1)
        return values if per_plane else values.sum(0, keepdim=True)
    result: Tensor = _ops.call(
        _ops.ngf_sums_, *tensors, *o.numbers(), dim, begin, end, per_plane, of_mask, *gradients
    )
    return result


def _values_by_reference(
    tensors: Tensors, o: Options, dim: int, begin: int, end: int, gradients: Tensors, of_mask: bool
) -> Tensor:
    """Return ``mask * value`` or the mask for each voxel of the planes; write their gradients."""
    input, target, eps, target_eps, mask = tensors
    assert input is not None and target is not None
    weights = torch.ones_like(input) if mask is None else mask.broadcast_to(input.shape)
    weights = weights.narrow(dim, begin, end - begin)
    if of_mask:
        return weights
    unweighted = o.with_tensors((eps, target_eps, mask))._replace(reduction="none", weight=1.0)
    pairs = list(zip((input, target), gradients, strict=True))
    images = [image.detach().requires_grad_(g is not None) for image, g in pairs]
    with torch.enable_grad():
        losses = reference.loss_from_options(images[0], images[1], unweighted)
    leaves = [image for image in images if image.requires_grad]
    if leaves:
        found = torch.autograd.grad(losses, leaves, torch.full_like(losses, o.weight))
        written = (g for g in gradients if g is not None)
        for gradient, values in zip(written, found, strict=True):
            gradient.copy_(values.narrow(dim, begin, end - begin))
    base, scale = o.base_and_scale
    losses = losses.detach().narrow(dim, begin, end - begin)
    return (base * weights.double() - losses) / scale
