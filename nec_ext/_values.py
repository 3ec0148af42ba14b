# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Looks for bad values in maps of eps and mask, in the dtype of the arithmetic."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter

from ._arguments import Options
from ._torch import is_eager


def has_values(tensor: Tensor) -> bool:
    """Return whether Python may look at the values: on the CPU, where operations run as called."""
    is_plain = type(tensor) in (Tensor, Parameter)  # a fake tensor has no values
    return tensor.device.type == "cpu" and is_plain and is_eager()


def loss_dtype(input: Tensor, target: Tensor) -> torch.dtype:
    """Return the dtype of the loss of two images."""
    wide = torch.float64 in (input.dtype, target.dtype)
    return torch.float64 if wide else torch.float32


def arithmetic_dtype(result: torch.dtype, o: Options) -> torch.dtype:
    """Return the dtype in which a loss of dtype ``result`` is computed.

    An eps or a spacing near an end of float32 asks for float64 (csrc/ops/arguments.cpp).
    """
    numbers = [1 / step for step in o.spacing]
    numbers += [eps for eps in (o.eps, o.target_eps) if not isinstance(eps, Tensor)]
    return result if all(1e-6 < number < 1e6 for number in numbers) else torch.float64


def may_have_bad_values(loss: Tensor) -> bool:
    """Return whether a loss looks as one of a map with a bad value does.

    A bad value makes the loss NaN or infinite; a mask whose weights are too small makes it 0.
    """
    seen = loss.detach()
    seen = seen.sum() if seen.dim() > 1 else seen
    return not all(0 < abs(value) < math.inf for value in seen.view(-1).tolist())


def check_maps(o: Options, dtype: torch.dtype) -> None:
    """Raise ValueError if a map has a bad value in the dtype of the arithmetic."""
    for name, value in (("eps", o.eps), ("target_eps", o.target_eps)):
        if isinstance(value, Tensor):
            used = value.to(dtype)
            is_bad = ~((used > 0) & (used < math.inf))
            _refuse(f"{name} must be positive and finite", value, is_bad, dtype)
    if o.mask is not None:
        used = o.mask.to(dtype)
        is_bad = ~((o.mask >= 0) & (used < math.inf))
        _refuse("mask must not be negative or infinite", o.mask, is_bad, dtype)
        _refuse("mask must not become 0", o.mask, (o.mask > 0) & (used == 0), dtype)


def _refuse(what: str, map: Tensor, is_bad: Tensor, dtype: torch.dtype) -> None:
    bad = map[is_bad]
    if bad.numel() > 0:
        where = " in float32" if map.dtype == torch.float64 != dtype else ""
        raise ValueError(f"{what}{where}, got a value of {bad[0].item()}")
