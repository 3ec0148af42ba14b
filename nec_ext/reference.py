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
    HALF_DTYPES,
    Options,
    check_images,
    check_option,
    check_real,
    parse_eps,
    parse_mask,
    parse_options,
    parse_positive,
    parse_spacing,
    plain,
)
from ._values import arithmetic_dtype, check_maps, has_values, loss_dtype

__all__ = ["estimate_eps", "image_gradient", "interior_mask", "ngf_field", "ngf_loss"]


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

    Raises:
        TypeError, ValueError: see :func:`nec_ext.ngf_loss`.
    """
    check_option("operator", operator)
    image = check_images(image=image)["image"]
    return _gradient(image, operator, parse_spacing(spacing, image.dim() - 2))


def _gradient(image: Tensor, operator: str, steps: Sequence[float]) -> Tensor:
    components = [_derivative(image, axis, operator) / step for axis, step in enumerate(steps)]
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
    """Normalize a gradient ``(B, C, ndim, ...)``; augmented, it gets eps as one more component.

    The field does not change when the gradient and eps are divided by the same number. Dividing by
    the larger of eps and the largest component keeps the squares from overflowing and from
    vanishing.
    """
    if isinstance(eps, Tensor):
        eps = eps.broadcast_to(gradient[:, :, 0].shape).unsqueeze(2)
        eps = torch.where((eps > 0) & (eps < torch.inf), eps, torch.nan)
    scale = gradient.detach().abs().amax(2, keepdim=True)
    level = torch.as_tensor(eps, dtype=scale.dtype, device=scale.device).detach()
    scale = torch.maximum(scale, level)
    gradient, eps = gradient / scale, eps / scale
    squared = gradient.square().sum(2, keepdim=True)
    if eps_mode == "augmented":
        gradient = torch.cat([gradient, eps.expand_as(squared)], 2)
    if eps_mode != "additive":
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
    steps: Sequence[float],
) -> Tensor:
    if isinstance(eps, Tensor):
        eps = eps.to(image.dtype)
    # Half the image with half the eps has the same field, and its differences do not overflow.
    return _normalize(_gradient(0.5 * image, operator, steps), 0.5 * eps, eps_mode)


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
        ``(B, C, ndim, ...)``: one component per spatial axis, in the tensor's order, and in
        augmented mode eps's own at the end. Its length is below 1, in augmented mode 1. float64 for
        a float64 image, else float32.

    Raises:
        TypeError, ValueError: see :func:`nec_ext.ngf_loss`.
    """
    check_option("eps_mode", eps_mode)
    check_option("operator", operator)
    image = check_images(image=image)["image"]
    eps = parse_eps("eps", eps, image)
    options = Options(eps, spacing=parse_spacing(spacing, image.dim() - 2))
    result = _upcast(image).dtype
    dtype = arithmetic_dtype(result, options)
    if isinstance(eps, Tensor) and has_values(image):
        check_maps(options, dtype)
    return _field(image.to(dtype), eps, eps_mode, operator, options.spacing).to(result)


def estimate_eps(
    image: Tensor,
    eta: float = 1.0,
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
    *,
    mask: Tensor | None = None,
    statistic: str = "mean",
) -> Tensor:
    """Estimate the noise level ``eps``: ``eta`` times the typical length of the gradient.

    With the mean this is the threshold of E. Haber and J. Modersitzki, MICCAI 2006.

    Args:
        image: ``(B, C, H, W)`` or ``(B, C, D, H, W)``. No gradient flows to it. A volume needs its
            batch axis: ``(C, D, H, W)`` is taken for 2D images with D channels.
        eta: the multiple of the typical length that counts as noise; positive.
        operator, spacing: see :func:`nec_ext.ngf_loss`.
        mask: weights of the voxels, as in :func:`nec_ext.ngf_loss`: a brain without its background,
            say, which would pull the mean down. Default: all voxels count alike.
        statistic: the typical length: ``"mean"``, ``"median"`` or ``"rms"`` (the root of the mean
            square).

    Returns:
        ``(B, C, 1, 1)`` or ``(B, C, 1, 1, 1)``: one number per image, ready to be the ``eps`` of
        :func:`nec_ext.ngf_loss`. For an image that is constant in the mask, and for an empty mask,
        the smallest step of the dtype above 1.

    Raises:
        TypeError, ValueError: see :func:`nec_ext.ngf_loss`.
    """
    check_option("operator", operator)
    check_option("statistic", statistic)
    image = check_images(image=image)["image"]
    eta = parse_positive("eta", eta)
    steps = parse_spacing(spacing, image.dim() - 2)
    gradient = _gradient(_upcast(image.detach()), operator, steps)
    length = torch.linalg.vector_norm(gradient, dim=2).flatten(2)
    weight = torch.ones_like(length)
    if mask is not None:
        mask = parse_mask(mask, image)
        if has_values(image):
            check_maps(Options(mask=mask), length.dtype)
        weight = mask.detach().to(length.dtype).broadcast_to(image.shape).flatten(2)
    total = weight.sum(2, keepdim=True)
    total = torch.where(total == 0, 1.0, total)
    if statistic == "median":  # the shortest length that half of the weight does not exceed
        length, order = length.sort(2)
        share = weight.double().gather(2, order).cumsum(2) / total
        typical = length.gather(
            2, (share < 0.5).sum(2, keepdim=True).clamp(max=length.shape[2] - 1)
        )
        typical = typical * (weight.amax(2, keepdim=True) > 0)
    elif statistic == "rms":
        typical = ((weight * length.square()).sum(2, keepdim=True) / total).sqrt()
    else:
        typical = (weight * length).sum(2, keepdim=True) / total
    info = torch.finfo(length.dtype)
    eps = torch.where(typical == 0, info.eps, (eta * typical).clamp(min=info.tiny))
    return eps.view(*image.shape[:2], *(1,) * (image.dim() - 2))


def interior_mask(mask: Tensor, operator: str = "central") -> Tensor:
    """Return the mask without the voxels whose differences reach outside of it.

    With the result as its ``mask``, the loss and its gradient depend on no image value outside of
    ``mask``: neither a false edge at the mask's border nor a value beyond it counts. A NaN or an
    infinity beyond it shows in the loss all the same, which hides none; replace it first, as in the
    example. Images that are multiplied by a mask have a false edge along its border instead.

    Args:
        mask: ``(B, C, H, W)`` or ``(B, C, D, H, W)``, bool or non-negative weights; positive ones
            are inside. Axes of length 1 broadcast. The borders of the image are no borders of the
            mask, because images are continued there.
        operator: the operator of the loss.

    Returns:
        A mask of the same shape and dtype: 0 where a difference reaches outside, else ``mask``.

    Raises:
        TypeError, ValueError: the mask is not a real tensor of 4 or 5 axes; an unknown operator.

    Example:
        >>> inside = nec_ext.interior_mask(brain)
        >>> mr = torch.where(brain, mr, 0.0)  # the scanner wrote NaN outside
        >>> loss = nec_ext.ngf_loss(generated, mr, mask=inside)
    """
    check_option("operator", operator)
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor, got {type(mask).__name__}")
    check_real("mask", mask)
    if mask.dim() not in (4, 5):
        raise ValueError(
            "mask must have shape (B, C, H, W) or (B, C, D, H, W), "
            f"got {mask.dim()} dimensions: {tuple(mask.shape)}"
        )
    mask = plain(mask)
    positive = mask > 0
    inside = positive
    for axis in range(mask.dim() - 2):
        # Sobel's smoothing looks along all axes at once.
        source = inside if operator == "sobel" else positive
        for offset in (1,) if operator == "forward" else (-1, 1):
            inside = inside & _neighbor(source, axis, offset)
    return torch.where(inside, mask, torch.zeros((), dtype=mask.dtype, device=mask.device))


def ngf_loss(
    input: Tensor,
    target: Tensor,
    *,
    eps: float | Tensor = DEFAULT_EPS,
    target_eps: float | Tensor | None = None,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
    mask: Tensor | None = None,
    weight: float = 1.0,
    reduction: str = "mean",
    form: str = "squared",
) -> Tensor:
    """Compute the loss in plain PyTorch.

    Arguments, errors and result are those of :func:`nec_ext.ngf_loss`.
    """
    given = (eps, target_eps, eps_mode, operator, spacing, mask, weight, reduction, form)
    input, target, options = parse_options(input, target, *given)
    find_bad_values(input, target, options)
    return loss_from_options(input, target, options)


def find_bad_values(input: Tensor, target: Tensor, o: Options) -> None:
    """Raise ValueError for a bad value in a map, of which not every one shows in the loss here."""
    if o.has_maps and has_values(input):
        check_maps(o, arithmetic_dtype(loss_dtype(input, target), o))


def loss_from_options(input: Tensor, target: Tensor, o: Options) -> Tensor:
    """Compute the loss of checked arguments."""
    result = loss_dtype(input, target)
    dtype = arithmetic_dtype(result, o)
    shared = (o.eps_mode, o.operator, o.spacing)
    n_input = _field(input.to(dtype), o.eps, *shared)
    n_target = _field(target.to(dtype), o.target_eps, *shared)
    loss = _voxel_loss(n_input, n_target, o)
    if o.mask is None:
        return _reduced(loss, None, o).to(result)
    mask = o.mask.to(dtype).broadcast_to(loss.shape)
    mask = torch.where(mask >= 0, mask, torch.nan)
    return _reduced(mask * loss, mask, o).to(result)


def _reduced(loss: Tensor, mask: Tensor | None, o: Options) -> Tensor:
    if o.reduction == "none":
        return o.weight * loss
    axes = tuple(range(1 if o.reduction == "sample" else 0, loss.dim()))
    if o.reduction == "sum":
        return o.weight * loss.sum()
    if mask is None:
        return o.weight * loss.mean(axes)
    total = mask.sum(axes)
    # Over no voxel the mean is 0 with gradient 0, by the mask too.
    is_empty = total == 0
    return o.weight * (~is_empty * loss.sum(axes) / torch.where(is_empty, 1.0, total))


def loss_and_gradients(
    input: Tensor, target: Tensor, o: Options, target_grad: bool
) -> list[Tensor]:
    """Compute the loss of checked arguments, and its gradient by one image or by both."""

    def loss_of(input: Tensor, target: Tensor = target) -> Tensor:
        return loss_from_options(input, target, o)

    images = (input, target) if target_grad else (input,)
    loss, vjp = torch.func.vjp(loss_of, *images)[:2]
    return [loss, *vjp(torch.ones_like(loss))]


def _voxel_loss(n: Tensor, m: Tensor, o: Options) -> Tensor:
    """Compute the loss of every voxel from two fields ``(B, C, components, ...)``."""
    if o.form == "cross":
        pairs = [(j, k) for k in range(n.shape[2]) for j in range(k)]
        components = [n[:, :, j] * m[:, :, k] - n[:, :, k] * m[:, :, j] for j, k in pairs]
        return 0.5 * torch.stack(components).square().sum(0)
    product, ndim = n * m, len(o.spacing)
    alignment = product[:, :, :ndim].sum(2)
    if o.form == "absolute":
        # Where the fields are perpendicular, rounding leaves a rest whose sign means nothing.
        rounding = 4 * torch.finfo(product.dtype).eps * product[:, :, :ndim].detach().abs().sum(2)
        alignment = alignment.abs() * (alignment.detach().abs() > rounding)
    if o.eps_mode == "augmented":
        alignment = alignment + product[:, :, ndim]
    return 1 - (0.5 * alignment.square() if o.form == "squared" else alignment)


def _upcast(image: Tensor) -> Tensor:
    """Convert half types to float32."""
    return image.float() if image.dtype in HALF_DTYPES else image
