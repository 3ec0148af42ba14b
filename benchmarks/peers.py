# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The peers of the fused loss: the same loss in plain PyTorch, and other losses.

The same loss has three formulations, that is, three ways to compute it in PyTorch. The leanest one
is in examples/common/eager.py, the other two are here.
"""

from __future__ import annotations

from functools import wraps

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.common.eager import GUARD, central_differences, eager_ngf_loss, padded, voxel_losses
from examples.common.measure import LossFunction


def fields_ngf_loss(input: Tensor, target: Tensor, eps: float = 0.15) -> Tensor:
    """Compute the loss as the paper writes it: as a product of two normalized gradient fields."""
    steps = (1.0,) * (input.dim() - 2)
    fields = [
        _normalized(torch.stack(central_differences(image, steps), 2), eps)
        for image in (input, target)
    ]
    alignment = (fields[0] * fields[1]).sum(2)
    return (1 - 0.5 * alignment.square()).mean()


def convolutions_ngf_loss(input: Tensor, target: Tensor, eps: float = 0.15) -> Tensor:
    """Compute the loss with the differences as a convolution with fixed kernels."""
    ndim = input.dim() - 2
    kernels = input.new_zeros(ndim, 1, *(3,) * ndim)
    for axis, kernel in enumerate(kernels[:, 0]):
        # This is the line through the middle of the kernel along the axis.
        line = kernel[tuple(slice(None) if k == axis else 1 for k in range(ndim))]
        line[0], line[2] = -0.5, 0.5
    convolve = F.conv2d if ndim == 2 else F.conv3d
    fields = [
        _normalized(convolve(padded(image.flatten(0, 1).unsqueeze(1)), kernels), eps, axis=1)
        for image in (input, target)
    ]
    alignment = (fields[0] * fields[1]).sum(1)
    return (1 - 0.5 * alignment.square()).mean()


def in_float32(function: LossFunction) -> LossFunction:
    """Wrap a loss so that it computes in float32 for images of any dtype, as autocast does."""

    @wraps(function)
    def cast(input: Tensor, target: Tensor) -> Tensor:
        return function(input.float(), target.float())

    return cast


def hand_written() -> dict[str, LossFunction]:
    """Return the formulations of the loss that people write by hand, eager and compiled."""
    torch.compiler.reset()  # torch compiles a function for a limited number of shapes
    voxels = torch.compile(in_float32(voxel_losses), dynamic=False)
    return {
        "torch.compile": torch.compile(in_float32(eager_ngf_loss), dynamic=False),
        # The mean is outside, because inside it can make torch 2.11 65 times as slow on a GPU.
        "torch.compile, voxels": lambda input, target: voxels(input, target).mean(),
        "torch.compile, fields": torch.compile(in_float32(fields_ngf_loss), dynamic=False),
        "eager": in_float32(eager_ngf_loss),
        "eager, fields": in_float32(fields_ngf_loss),
        "eager, convolutions": in_float32(convolutions_ngf_loss),
    }


def other_losses(dims: int) -> dict[str, LossFunction]:
    """Return losses that compare two images in other ways."""
    losses = {"l1_loss": in_float32(F.l1_loss)}
    try:
        from monai.losses import LocalNormalizedCrossCorrelationLoss
    except ImportError:
        return losses
    return {
        **losses,
        "MONAI LNCC": in_float32(LocalNormalizedCrossCorrelationLoss(spatial_dims=dims)),
    }


def _normalized(gradient: Tensor, eps: float, axis: int = 2) -> Tensor:
    length = (gradient.square().sum(axis, keepdim=True) + GUARD).sqrt()
    return gradient / (length + eps)
