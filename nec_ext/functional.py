# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from . import _autograd, _ops, reference
from ._arguments import DEFAULT_EPS, Options, parse_options
from ._devices import warn_of_reference
from ._torch import is_forward_mode
from ._values import arithmetic_dtype, check_maps, has_values, may_have_bad_values

__all__ = ["ngf_loss", "ngf_loss_and_gradient"]


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
    """Compute the normalized gradient field loss, and its gradient in the same sweep of the images.

    At every voxel the loss is ``1 - <n(I), n(J)>^2 / 2``, in [1/2, 1]: it is small where the edges
    of both images run in parallel or opposite directions, whatever their contrast, equation (3) of
    the paper (1). With ``d`` the spatial gradient of an image,

    * ``"additive"``: ``n(I) = d / (|d| + eps)``, equation (4) of the paper,
    * ``"quadrature"``: ``n(I) = d / sqrt(|d|^2 + eps^2)``, the field of Haber and Modersitzki (2)
      and of the paper's code,
    * ``"augmented"``: ``n(I) = (d, eps) / sqrt(|d|^2 + eps^2)``, with eps as one more component:
      flat regions of both images agree, and an edge that the other image lacks costs something.

    Gradients reach ``input`` and ``target``, and those of ``eps``, ``target_eps`` and ``mask`` that
    are tensors, each where it is required. Where an image is constant its gradient is 0, not NaN. A
    NaN or an infinity in an image shows in the loss, also under a mask of 0.

    Args:
        input: the generated image, ``(B, C, H, W)`` or ``(B, C, D, H, W)``; float32, float64,
            float16 or bfloat16. Each channel of each sample is an image on its own. Any strides.
            A volume needs its batch axis: ``(C, D, H, W)`` is taken for C samples of 2D images with
            D channels.
        target: the source image, of the same shape and on the same device; its dtype may differ.
        eps: noise level, in intensity per unit of spacing: gradients well below it do not count as
            edges. A positive float, or a tensor broadcastable to the images: per sample, per
            channel or per voxel. The default, 0.15, is the paper's, for images in [-1, 1].
        target_eps: the same for ``target``. Default: as ``eps``.
        eps_mode: ``"additive"``, ``"quadrature"`` or ``"augmented"``.
        operator: ``"central"`` differences, ``"forward"`` differences, or ``"sobel"``: central
            differences, smoothed by [1, 2, 1] / 4 along the other axes. Borders are replicated.
        spacing: voxel size, a number or one per spatial axis in the tensor's order (D, H, W).
            Default: 1.
        mask: weights of the voxels, non-negative and finite, bool or real, broadcastable to the
            images. The mean becomes ``sum(mask * loss) / sum(mask)``, and 0 (with gradient 0) where
            the mask is 0 everywhere.
        weight: multiplies the loss and its gradient, for the lambda of a compound loss: in contrast
            to a multiplication afterwards it costs nothing.
        reduction: ``"mean"``, ``"sum"``, ``"none"``, or ``"sample"``: the mean of each sample on
            its own, 0 where its mask is 0 everywhere. It is a sweep per sample, which for many
            small images takes several times as long as ``"mean"``.
        form: the loss of a voxel, with ``t`` the scalar product of both fields:

            * ``"squared"``: ``1 - t^2 / 2``, in [1/2, 1],
            * ``"signed"``: ``1 - t``, in [0, 2]: edges must point in the same direction,
            * ``"absolute"``: ``1 - t`` with the absolute value of the gradients' scalar product, in
              [0, 1],
            * ``"cross"``: half the squared length of the fields' cross product, in [0, 1/2]; not
              in augmented mode.

    Returns:
        A scalar; with ``reduction="none"`` the losses in the images' shape; with ``"sample"``
        ``(B,)``. float64 if an image is, else float32.

    Raises:
        TypeError: an image is not a floating-point tensor; an option is of the wrong type.
        ValueError: shapes, devices or dimensions that do not fit; a value that is not allowed. The
            values inside a tensor on a GPU, or under ``torch.compile``, are not looked at: an eps
            that is not positive and a negative mask make the loss NaN there, an infinite mask NaN
            or infinite.

    Example:
        >>> generated = torch.rand(1, 1, 64, 64, 64, requires_grad=True)
        >>> source = torch.rand(1, 1, 64, 64, 64)
        >>> nec_ext.ngf_loss(generated, source, eps=0.15, spacing=(1.0, 0.9, 0.9)).backward()

    References:
        1. V. Jaouen, P.-H. Conze, D. Visvikis, "One-sided unsupervised medical image synthesis with
           normalized edge consistency", ISBI 2024, doi 10.1109/ISBI56570.2024.10635150.
        2. E. Haber, J. Modersitzki, "Intensity gradient based registration and fusion of
           multi-modal images", MICCAI 2006.
    """
    given = (eps, target_eps, eps_mode, operator, spacing, mask, weight, reduction, form)
    input, target, options = parse_options(input, target, *given)
    if not _has_kernels(input):
        reference.find_bad_values(input, target, options)
        return reference.loss_from_options(input, target, options)
    if options.reduction == "sample":
        count = input.shape[0]
        samples = zip(
            input.chunk(count), target.chunk(count), options.by_sample(count), strict=True
        )
        loss = torch.stack([_autograd.fused_loss(*sample) for sample in samples])
    else:
        loss = _autograd.fused_loss(input, target, options)
    _find_bad_values(loss, options)
    return loss


def ngf_loss_and_gradient(
    input: Tensor,
    target: Tensor,
    *,
    target_grad: bool = False,
    eps: float | Tensor = DEFAULT_EPS,
    target_eps: float | Tensor | None = None,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
    mask: Tensor | None = None,
    weight: float = 1.0,
    reduction: str = "mean",
    form: str = "squared",
) -> tuple[Tensor, ...]:
    """Compute the loss and its gradient without autograd, for a step that is written by hand.

    It is the sweep of :func:`ngf_loss` and no more: no graph is made and no stored gradient scaled,
    which counts where images are small.

    A gradient of float16 underflows where a mean is over many voxels, as there is no ``backward``
    that scales it: multiply it by a ``weight``, the number of voxels, say, and divide later, or
    take ``reduction="sum"``.

    Args:
        input, target: the images, as in :func:`ngf_loss`; whether they require a gradient does not
            matter.
        target_grad: also compute the gradient by ``target``.
        eps, target_eps, eps_mode, operator, spacing, mask, weight, form: as in :func:`ngf_loss`.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        The loss, a scalar as of :func:`ngf_loss`, its gradient by ``input``, of the input's shape
        and dtype, and with ``target_grad`` its gradient by ``target``. They have no graph.

    Raises:
        TypeError, ValueError: as :func:`ngf_loss`; a reduction to more than one number.

    Example:
        >>> warped = warp(moving, displacement)
        >>> loss, gradient = nec_ext.ngf_loss_and_gradient(warped, fixed, eps=0.15)
        >>> warped.backward(gradient)
    """
    given = (eps, target_eps, eps_mode, operator, spacing, mask, weight, reduction, form)
    input, target, options = parse_options(input, target, *given)
    if not isinstance(target_grad, bool):
        raise TypeError(f"target_grad must be a bool, got {type(target_grad).__name__}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum' for a gradient, got {reduction!r}")
    with torch.no_grad():
        if _has_kernels(input):
            wanted = (True, target_grad)
            loss, *gradients = _autograd.loss_and_gradients(input, target, options, wanted)
            _find_bad_values(loss, options)
        else:
            reference.find_bad_values(input, target, options)
            loss, *gradients = reference.loss_and_gradients(input, target, options, target_grad)
    return loss, *gradients


def _has_kernels(input: Tensor) -> bool:
    """Return whether kernels compute the loss; warn of a device that has none."""
    # Forward-mode derivatives have no kernel, and would silently be 0.
    if input.device.type in _ops.FUSED_DEVICES and not is_forward_mode():
        return True
    warn_of_reference(input.device.type)
    return False


def _find_bad_values(loss: Tensor, options: Options) -> None:
    """Raise ValueError for a bad value in a map, which is searched where it shows in the loss."""
    if options.has_maps and has_values(loss) and may_have_bad_values(loss):
        check_maps(options, arithmetic_dtype(loss.dtype, options))


def refuse_script() -> NoReturn:
    """Raise NotImplementedError: torch.jit.script calls this before it compiles."""
    raise NotImplementedError(
        "torch.jit.script cannot compile the loss of nec_ext, whose options are keyword-only: "
        "use torch.export, torch.compile or torch.jit.trace"
    )


ngf_loss.__prepare_scriptable__ = refuse_script  # type: ignore[attr-defined]
