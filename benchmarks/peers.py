# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What people use today: three formulations of the loss in plain PyTorch, and other losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from .measure import LossFunction

# The usual guard: in a constant background the derivative of the square root is infinite.
GUARD = 1e-12


def eager_ngf_loss(
    input: Tensor, target: Tensor, eps: float = 0.15, spacing: Sequence[float] | None = None
) -> Tensor:
    """The additive NGF loss, central differences: pad once, slice, one quotient.

    The leanest formulation known of ``(B, C, H, W)`` and ``(B, C, D, H, W)`` images in plain
    PyTorch, and what ``torch.compile`` makes the most of.
    """
    return voxel_losses(input, target, eps, spacing).mean()


def voxel_losses(
    input: Tensor, target: Tensor, eps: float = 0.15, spacing: Sequence[float] | None = None
) -> Tensor:
    """What the above is the mean of."""
    steps = spacing or (1.0,) * (input.dim() - 2)
    d, e = _central_differences(input, steps), _central_differences(target, steps)
    a = (_dot(d, d) + GUARD).sqrt()
    b = (_dot(e, e) + GUARD).sqrt()
    alignment = _dot(d, e) / ((a + eps) * (b + eps))
    return 1 - 0.5 * alignment * alignment


def fields_ngf_loss(input: Tensor, target: Tensor, eps: float = 0.15) -> Tensor:
    """The same as the paper writes it: both normalized gradient fields, and their product."""
    steps = (1.0,) * (input.dim() - 2)
    fields = [
        _normalized(torch.stack(_central_differences(image, steps), 2), eps)
        for image in (input, target)
    ]
    alignment = (fields[0] * fields[1]).sum(2)
    return (1 - 0.5 * alignment.square()).mean()


def convolutions_ngf_loss(input: Tensor, target: Tensor, eps: float = 0.15) -> Tensor:
    """The same with the differences as a convolution with fixed kernels."""
    ndim = input.dim() - 2
    kernels = input.new_zeros(ndim, 1, *(3,) * ndim)
    for axis, kernel in enumerate(kernels[:, 0]):
        # The line through the middle of the kernel along this axis.
        line = kernel[tuple(slice(None) if k == axis else 1 for k in range(ndim))]
        line[0], line[2] = -0.5, 0.5
    convolve = F.conv2d if ndim == 2 else F.conv3d
    fields = [
        _normalized(convolve(_padded(image.flatten(0, 1).unsqueeze(1)), kernels), eps, axis=1)
        for image in (input, target)
    ]
    alignment = (fields[0] * fields[1]).sum(1)
    return (1 - 0.5 * alignment.square()).mean()


def in_float32(function: LossFunction) -> LossFunction:
    """The loss of images of any dtype, computed as autocast computes losses."""

    @wraps(function)
    def cast(input: Tensor, target: Tensor) -> Tensor:
        return function(input.float(), target.float())

    return cast


def hand_written() -> dict[str, LossFunction]:
    """The same loss without this package."""
    torch.compiler.reset()  # a function is compiled for so many shapes and then no more
    voxels = torch.compile(in_float32(voxel_losses), dynamic=False)
    return {
        "torch.compile": torch.compile(in_float32(eager_ngf_loss), dynamic=False),
        # The mean outside: with it inside, torch 2.11 can be 65 times as slow on a GPU.
        "torch.compile, voxels": lambda input, target: voxels(input, target).mean(),
        "torch.compile, fields": torch.compile(in_float32(fields_ngf_loss), dynamic=False),
        "eager": in_float32(eager_ngf_loss),
        "eager, fields": in_float32(fields_ngf_loss),
        "eager, convolutions": in_float32(convolutions_ngf_loss),
    }


def other_losses(dims: int) -> dict[str, LossFunction]:
    """What it costs to ask for another loss."""
    found = {"l1_loss": in_float32(F.l1_loss)}
    try:
        from monai.losses import LocalNormalizedCrossCorrelationLoss
    except ImportError:
        return found
    return {
        **found,
        "MONAI LNCC": in_float32(LocalNormalizedCrossCorrelationLoss(spatial_dims=dims)),
    }


def _padded(image: Tensor) -> Tensor:
    return F.pad(image, (1, 1) * (image.dim() - 2), mode="replicate")


def _central_differences(image: Tensor, steps: Sequence[float]) -> list[Tensor]:
    ndim = image.dim() - 2
    padded = _padded(image)

    def shifted(axis: int, start: int) -> Tensor:
        starts = [start if k == axis else 1 for k in range(ndim)]
        inside = [slice(s, s + n) for s, n in zip(starts, image.shape[2:], strict=True)]
        return padded[(slice(None), slice(None), *inside)]

    return [(shifted(k, 2) - shifted(k, 0)) / (2 * steps[k]) for k in range(ndim)]


def _normalized(gradient: Tensor, eps: float, axis: int = 2) -> Tensor:
    length = (gradient.square().sum(axis, keepdim=True) + GUARD).sqrt()
    return gradient / (length + eps)


def _dot(p: Sequence[Tensor], q: Sequence[Tensor]) -> Tensor:
    total = p[0] * q[0]
    for i, j in zip(p[1:], q[1:], strict=True):
        total = total + i * j
    return total
