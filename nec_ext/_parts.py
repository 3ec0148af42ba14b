# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A volume in parts along one axis: what ranks of a group and tiles of a device have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _ops
from ._arguments import Options, check_option
from ._devices import reason_here

# Planes around those whose gradient is wanted: their own losses need one, and those of the planes
# beside them, in which they appear too, another one.
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
    """ValueError for losses per voxel, which no part knows how to put together."""
    check_option("reduction", reduction)
    if reduction == "none":
        raise ValueError("reduction must be 'mean' or 'sum' for a volume in parts, got 'none'")


def check_device(name: str, device: torch.device) -> None:
    """ValueError where there is no kernel: the reference knows no parts."""
    reason = "it has no values" if device.type == "meta" else reason_here(device.type)
    if reason is not None:
        raise ValueError(f"{name} must be a CPU or a CUDA GPU, got {device}: {reason}")


def cut(tensors: Tensors, dim: int, begin: int, end: int) -> list[Tensor | None]:
    """Planes of all tensors, as views; one that is the same for all planes is left as it is."""
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
    """Sums of ``mask * t^2``, or of the mask, over the planes from begin to end.

    The gradients of these planes are written into the tensors given for them. The planes around
    must be there too, two where the volume goes on.
    """
    result: Tensor = _ops.call(
        _ops.ngf_sums_, *tensors, *o.numbers(), dim, begin, end, per_plane, of_mask, *gradients
    )
    return result
