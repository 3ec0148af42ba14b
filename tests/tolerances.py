# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The one table of tolerances, from which every comparison with an oracle takes its bounds.

An entry belongs to the dtype of the *output* that is judged: the loss of half images is float32 and
is held to float32. The oracle gets the same numbers as the kernel (half images are exact in
float64), so the bounds cover the arithmetic and the storage of the result, not the rounding of the
inputs.
"""

from __future__ import annotations

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


def _half(dtype: torch.dtype) -> Tolerance:
    # Rounded to the half type twice: the gradient of the sum when it is stored, and again when
    # backward scales it. Half a unit each time, relative to the element; the largest element bounds
    # all of them. The loss is never a half.
    twice_rounded = 2 * torch.finfo(dtype).eps / 2
    return Tolerance(
        loss=0.0,
        per_voxel=0.0,
        gradient_l2=1.05 * twice_rounded,
        gradient_max=1.05 * twice_rounded,
        underflow=2 * _subnormal_step(dtype) / 2,
    )


TOLERANCES = {
    # What the project promises: 1e-6 for the loss and 1e-5 in relative L2 for the gradient. A sum
    # of many voxels is kept in float64, so the loss does not get worse with their number, and that
    # of one voxel is held to the same: some ten operations, each wrong by 6e-8 at most.
    torch.float32: Tolerance(
        loss=1e-6,
        per_voxel=1e-6,
        gradient_l2=1e-5,
        gradient_max=1e-5,
        # The field of up to 18 neighbours is stored before the differences are summed.
        underflow=20 * _subnormal_step(torch.float32),
    ),
    # A few units of 1.1e-16 for the loss, in kernel and oracle each. Where the two gradients of a
    # voxel are parallel and long, the derivative is what is left of a difference of nearly equal
    # numbers, smaller by (eps / a)^2: with a = 2 and eps = 0.15 it loses a factor of 180.
    torch.float64: Tolerance(
        loss=1e-15,
        per_voxel=2e-15,
        gradient_l2=1e-13,
        gradient_max=1e-13,
        underflow=20 * _subnormal_step(torch.float64),
    ),
    torch.float16: _half(torch.float16),
    torch.bfloat16: _half(torch.bfloat16),
}
