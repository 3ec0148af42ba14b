# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The one table of tolerances, from which every comparison with an oracle takes its bounds.

An entry belongs to the dtype of the output that is judged. The oracle gets the same numbers as the
kernel: the bounds cover the arithmetic and the storage of the result.
"""

from typing import NamedTuple

import torch


class Tolerance(NamedTuple):
    """Bounds on the error of one output."""

    loss: float  # relative, of a reduced loss
    per_voxel: float  # absolute, of one voxel's loss, which lies in [1/2, 1]
    gradient_l2: float  # |error|_2 / |gradient|_2
    gradient_max: float  # largest error of an element / largest element of the gradient
    underflow: float  # absolute, per element: what storing a number below the normal range may cost


def _subnormal_step(dtype: torch.dtype) -> float:
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def _tolerance(dtype: torch.dtype, loss: float, per_voxel: float, gradient: float) -> Tolerance:
    # Up to 18 neighbours are stored before their differences are summed.
    return Tolerance(loss, per_voxel, gradient, gradient, underflow=20 * _subnormal_step(dtype))


def _half(dtype: torch.dtype) -> Tolerance:
    # A gradient is rounded when it is stored, and again when backward scales it: half a unit each.
    # The loss is never a half.
    rounding = 1.05 * torch.finfo(dtype).eps
    return Tolerance(0.0, 0.0, rounding, rounding, underflow=_subnormal_step(dtype))


TOLERANCES = {
    torch.float32: _tolerance(torch.float32, loss=1e-6, per_voxel=1e-6, gradient=1e-5),
    # Where the gradients of a voxel are parallel and long, the derivative is a difference of nearly
    # equal numbers, smaller by (eps / a)^2: with a = 2 and eps = 0.15 it loses a factor of 180.
    torch.float64: _tolerance(torch.float64, loss=1e-15, per_voxel=2e-15, gradient=1e-13),
    torch.float16: _half(torch.float16),
    torch.bfloat16: _half(torch.bfloat16),
}
