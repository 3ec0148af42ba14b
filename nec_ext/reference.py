# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The NGF loss and its field in plain PyTorch, written to be read and to be right.

This is the oracle of the tests, the path for devices without a kernel, and what double backward
goes through. It follows the formulas one after the other and keeps every intermediate volume: for
speed and memory use :func:`nec_ext.ngf_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._arguments import (
    DEFAULT_EPS,
    Options,
    check_images,
    check_maps,
    check_option,
    has_values,
    parse_eps,
    parse_options,
    parse_positive,
    parse_spacing,
)

__all__ = ["estimate_eps", "ngf_field", "ngf_loss"]


def image_gradient(
    image: Tensor, operator: str = "central", spacing: float | Sequence[float] | None = None
) -> Tensor:
    """Compute the spatial derivatives of an image, whose borders are replicated.

    Args:
        image: ``(B, C, H, W)`` or ``(B, C, D, H, W)``.
        operator: ``"central"``, ``"forward"`` or ``"sobel"``.
        spacing: voxel size, one number or one per spatial axis in the tensor's axis order.

    Returns:
        ``(B, C, ndim, ...)``, in image units per unit of spacing; axes in the tensor's order.
    """
    ndim = image.dim() - 2
    steps = parse_spacing(spacing, ndim)
    components = [_derivative(image, axis, operator) / steps[axis] for axis in range(ndim)]
    return torch.stack(components, 2)


def _derivative(image: Tensor, axis: int, operator: str) -> Tensor:
    if operator == "forward":
        return _neighbor(image, axis, 1) - image
    if operator == "sobel":
        for other in range(image.dim() - 2):
            if other != axis:
                lower, upper = _neighbor(image, other, -1), _neighbor(image, other, 1)
                image = 0.25 * lower + 0.5 * image + 0.25 * upper
    return 0.5 * (_neighbor(image, axis, 1) - _neighbor(image, axis, -1))


def _neighbor(image: Tensor, axis: int, offset: int) -> Tensor:
    """Shift an image by one voxel along a spatial axis and repeat its border voxel."""
    axis += 2
    size = image.shape[axis]
    border = image.narrow(axis, size - 1 if offset > 0 else 0, 1)
    inside = image.narrow(axis, 1 if offset > 0 else 0, size - 1)
    return torch.cat([inside, border] if offset > 0 else [border, inside], axis)


def _normalize(gradient: Tensor, eps: float | Tensor, eps_mode: str) -> Tensor:
    """Normalize a gradient ``(B, C, ndim, ...)`` by equation (4) of the paper or by quadrature.

    The field does not change when the gradient and eps are divided by the same number. Dividing by
    the larger of eps and the largest component keeps the squares from overflowing and from
    vanishing.
    """
    if isinstance(eps, Tensor):
        eps = eps.broadcast_to(gradient[:, :, 0].shape).unsqueeze(2)
        eps = torch.where((eps > 0) & (eps < torch.inf), eps, torch.nan)
    scale = gradient.detach().abs().amax(2, keepdim=True)
    scale = torch.maximum(scale, torch.as_tensor(eps, dtype=scale.dtype, device=scale.device))
    gradient, eps = gradient / scale, eps / scale
    squared = gradient.square().sum(2, keepdim=True)
    if eps_mode == "quadrature":
        return gradient / (squared + eps.square()).sqrt()
    # The derivative of a square root at 0 is infinite, and 0 times infinity is NaN: there the
    # length is taken as the constant 0 instead.
    nonzero = squared > 0
    length = torch.where(nonzero, torch.where(nonzero, squared, 1.0).sqrt(), 0.0)
    return gradient / (length + eps)


def _field(
    image: Tensor,
    eps: float | Tensor,
    eps_mode: str,
    operator: str,
    spacing: float | Sequence[float] | None,
) -> Tensor:
    if isinstance(eps, Tensor):
        eps = eps.to(image.dtype)
    # Half the image with half the eps has the same field, and its differences do not overflow.
    return _normalize(image_gradient(0.5 * image, operator, spacing), 0.5 * eps, eps_mode)


def ngf_field(
    image: Tensor,
    eps: float | Tensor = DEFAULT_EPS,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
) -> Tensor:
    """Compute the normalized gradient field of an image, as in figure 2 of the paper.

    It is plain PyTorch and differentiable.

    Args:
        image: ``(B, C, H, W)`` or ``(B, C, D, H, W)``. A volume needs its batch axis:
            ``(C, D, H, W)`` is taken for 2D images with D channels.
        eps, eps_mode, operator, spacing: see :func:`nec_ext.ngf_loss`.

    Returns:
        ``(B, C, ndim, ...)``: one component per spatial axis, in the tensor's order; its length is
        below 1. float64 for a float64 image, else float32.

    Raises:
        TypeError, ValueError: see :func:`nec_ext.ngf_loss`.
    """
    check_option("eps_mode", eps_mode)
    check_option("operator", operator)
    image = check_images(image=image)["image"]
    eps = parse_eps("eps", eps, image)
    if isinstance(eps, Tensor) and has_values(image):
        check_maps(Options(eps=eps))
    return _field(_upcast(image), eps, eps_mode, operator, spacing)


def estimate_eps(
    image: Tensor,
    eta: float = 1.0,
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
) -> Tensor:
    """Estimate the noise level ``eps``: ``eta`` times the mean length of the gradient.

    This is the threshold of E. Haber and J. Modersitzki, MICCAI 2006.

    Args:
        image: ``(B, C, H, W)`` or ``(B, C, D, H, W)``. No gradient flows to it. A volume needs its
            batch axis: ``(C, D, H, W)`` is taken for 2D images with D channels.
        eta: how many times the mean counts as noise; positive.
        operator, spacing: see :func:`nec_ext.ngf_loss`.

    Returns:
        ``(B, C, 1, 1)`` or ``(B, C, 1, 1, 1)``: one number per image, ready to be the ``eps`` of
        :func:`nec_ext.ngf_loss`. For a constant image, which has no gradient, the smallest step of
        the dtype above 1.

    Raises:
        TypeError, ValueError: see :func:`nec_ext.ngf_loss`.
    """
    check_option("operator", operator)
    image = check_images(image=image)["image"]
    eta = parse_positive("eta", eta)
    gradient = image_gradient(_upcast(image.detach()), operator, spacing)
    length = torch.linalg.vector_norm(gradient, dim=2)
    mean = length.mean(tuple(range(2, length.dim())), keepdim=True)
    smallest = torch.finfo(mean.dtype).eps
    return torch.clamp(eta * mean, min=smallest)


def ngf_loss(input: Tensor, target: Tensor, **options: object) -> Tensor:
    """Compute the loss in plain PyTorch.

    Arguments, errors and result are those of :func:`nec_ext.ngf_loss`.
    """
    input, target, parsed = parse_options(input, target, **options)  # type: ignore[arg-type]
    if parsed.has_maps and has_values(input):
        check_maps(parsed)
    return loss_from_options(input, target, parsed)


def loss_from_options(input: Tensor, target: Tensor, o: Options) -> Tensor:
    """Compute the loss of checked arguments."""
    dtype = torch.promote_types(_upcast(input).dtype, _upcast(target).dtype)
    shared = (o.eps_mode, o.operator, o.spacing)
    n_input = _field(input.to(dtype), o.eps, *shared)
    n_target = _field(target.to(dtype), o.target_eps, *shared)
    alignment = (n_input * n_target).sum(2)
    loss = 1 - 0.5 * alignment.square()
    if o.mask is not None:
        mask = o.mask.to(dtype).broadcast_to(loss.shape)
        mask = torch.where(mask >= 0, mask, torch.nan)
        loss = mask * loss
    if o.reduction == "none":
        return o.weight * loss
    if o.reduction == "sum":
        return o.weight * loss.sum()
    if o.mask is None:
        return o.weight * loss.mean()
    total = mask.sum()
    return o.weight * loss.sum() / torch.where(total == 0, 1.0, total)


def _upcast(image: Tensor) -> Tensor:
    """Convert half types to float32."""
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
