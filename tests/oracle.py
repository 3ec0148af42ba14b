# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss and its gradient by loops over voxels in long double, one formula after the other.

Shares nothing with nec_ext: neither its reference nor autograd. The gradient is scattered from the
analytic derivative, where nec_ext gathers or differentiates. Slow: for tiny images.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

Index = tuple[int, ...]
Real = np.longdouble
# The long double of x86-64 and of ARM has it. Where it is a plain double, 1e300 cannot be squared.
HAS_WIDE_RANGE = np.finfo(Real).maxexp > np.finfo(float).maxexp

CENTRAL = (-0.5, 0, 0.5)
ALONG = {"central": CENTRAL, "forward": (0, -1, 1), "sobel": CENTRAL}
ACROSS = {"central": (0, 1, 0), "forward": (0, 1, 0), "sobel": (0.25, 0.5, 0.25)}


def taps(operator: str, ndim: int, axis: int) -> Iterator[tuple[Index, float]]:
    """Yield offsets and coefficients of the difference along an axis."""
    rows = [ALONG[operator] if k == axis else ACROSS[operator] for k in range(ndim)]
    for offset in itertools.product((-1, 0, 1), repeat=ndim):
        coefficient = math.prod(row[o + 1] for row, o in zip(rows, offset, strict=True))
        if coefficient:
            yield offset, coefficient


def clamp(index: Index, offset: Index, shape: Index) -> Index:
    """Replicate padding: beyond the border lies the border voxel."""
    return tuple(
        min(max(i + o, 0), size - 1) for i, o, size in zip(index, offset, shape, strict=True)
    )


def voxel(
    d: np.ndarray, e: np.ndarray, eps: Real, target_eps: Real, mode: str, form: str
) -> tuple[Real, np.ndarray, np.ndarray]:
    """Return l, dl/dd and dl/de from the gradients d and e of both images at a voxel."""
    a, b, p = np.sqrt((d * d).sum()), np.sqrt((e * e).sum()), (d * e).sum()
    if mode == "additive":
        long_d, long_e = a + eps, b + target_eps
        slope_d, slope_e = a, b
    else:
        long_d, long_e = np.sqrt(a * a + eps * eps), np.sqrt(b * b + target_eps * target_eps)
        slope_d, slope_e = long_d, long_e
    q = 1 / (long_d * long_e)
    # The derivative of long_d by d is d / slope_d; that of q is -q times these.
    of_d = d / (slope_d * long_d) if a else 0 * d
    of_e = e / (slope_e * long_e) if b else 0 * e
    if form == "cross":
        loss = sum((d[j] * e[k] - d[k] * e[j]) ** 2 for k in range(len(d)) for j in range(k))
        loss *= q * q / 2
        by_d = (b * b * d - p * e) * q * q - 2 * loss * of_d
        return loss, by_d, (a * a * e - p * d) * q * q - 2 * loss * of_e
    sign = np.sign(p) if form == "absolute" else 1
    t = (sign * p + (eps * target_eps if mode == "augmented" else 0)) * q
    slope = -t if form == "squared" else -1
    loss = 1 - t * t / 2 if form == "squared" else 1 - t
    return loss, slope * (sign * e * q - t * of_d), slope * (sign * d * q - t * of_e)


def as_real(value: Any, shape: Index) -> np.ndarray:
    array = value.detach().double().cpu().numpy() if isinstance(value, Tensor) else value
    return np.broadcast_to(np.asarray(array, dtype=Real), shape)


def loop_loss(
    input: Tensor,
    target: Tensor,
    upstream: Any = 1.0,
    *,
    eps: Any = 0.15,
    target_eps: Any = None,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: Any = None,
    mask: Tensor | None = None,
    weight: float = 1.0,
    reduction: str = "mean",
    form: str = "squared",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the loss, and the gradients of ``upstream * loss`` by input and target."""
    shape, ndim = tuple(input.shape), input.dim() - 2
    space = shape[2:]
    steps = np.broadcast_to(np.asarray(1.0 if spacing is None else spacing, dtype=Real), (ndim,))
    images = as_real(input, shape), as_real(target, shape)
    eps_map = as_real(eps, shape)
    target_eps_map = eps_map if target_eps is None else as_real(target_eps, shape)
    weights = as_real(1.0 if mask is None else mask, shape)

    stencils = [[*taps(operator, ndim, k)] for k in range(ndim)]
    factor = Real(weight)
    if reduction == "mean":
        factor = factor / weights.sum() if weights.sum() else Real(0)
    # By how much a voxel's own loss moves upstream * loss.
    upstreams = as_real(upstream, shape) * factor * weights

    losses = np.zeros(shape, dtype=Real)
    gradients = np.zeros(shape, dtype=Real), np.zeros(shape, dtype=Real)
    for at in np.ndindex(*shape):
        channel, index = at[:2], at[2:]
        d, e = (
            np.array(
                [
                    sum(c * image[channel + clamp(index, o, space)] for o, c in stencil)
                    for stencil in stencils
                ]
            )
            / steps
            for image in images
        )
        loss, *derivatives = voxel(d, e, eps_map[at], target_eps_map[at], eps_mode, form)
        losses[at] = factor * weights[at] * loss
        for gradient, derivative in zip(gradients, derivatives, strict=True):
            for axis, stencil in enumerate(stencils):
                for offset, c in stencil:
                    gradient[channel + clamp(index, offset, space)] += (
                        upstreams[at] * derivative[axis] * c / steps[axis]
                    )
    return (losses if reduction == "none" else losses.sum()), *gradients
