# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Sums over a part of a volume, which the ranks of a group and the tiles of a device share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _ops
from ._arguments import Options, check_option
from ._devices import reason_here

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
    """Raise ValueError for a device without kernels: the reference has no parts."""
    reason = "it has no values" if device.type == "meta" else reason_here(device.type)
    if reason is not None:
        raise ValueError(f"{name} must be a CPU or a CUDA GPU, got {device}: {reason}")


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
    result: Tensor = _ops.call(
        _ops.ngf_sums_, *tensors, *o.numbers(), dim, begin, end, per_plane, of_mask, *gradients
    )
    return result
