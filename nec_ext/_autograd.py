# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss as a torch.autograd.Function.

Forward computes the loss and, where one is required, its gradient in the same sweep; backward
multiplies the stored gradient by one number. The gradient's buffer is handed out by the first
backward, scaled in place, so that a training step holds one volume and no more. A second backward
of a retained graph, and a loss per voxel, compute the gradient from the images; a derivative of the
gradient goes through the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _direct_calls as _direct_calls
from . import _ops, reference
from ._arguments import CHOICES, Options
from ._torch import eager_apply, is_batched, is_eager, is_recording

HALF_DTYPES = (torch.float16, torch.bfloat16)
# eps, target_eps and mask, where they are tensors.
Maps = tuple[Tensor | None, Tensor | None, Tensor | None]
Gradients = tuple[Tensor | None, Tensor | None]  # of input, of target
Wanted = tuple[bool, bool]  # which of them


class Settings(NamedTuple):
    """The arguments of the ops that are not tensors, in the order of the schema."""

    eps: float
    target_eps: float
    eps_mode: int
    operator: int
    spacing: tuple[float, ...]
    weight: float


def split_options(o: Options) -> tuple[Maps, Settings]:
    """What the ops take as tensors, and what as numbers."""
    eps, eps_map = (0.0, o.eps) if isinstance(o.eps, Tensor) else (o.eps, None)
    target_eps, target_eps_map = (
        (0.0, o.target_eps) if isinstance(o.target_eps, Tensor) else (o.target_eps, None)
    )
    settings = Settings(
        eps,
        target_eps,
        CHOICES["eps_mode"].index(o.eps_mode),
        CHOICES["operator"].index(o.operator),
        o.spacing,
        o.weight,
    )
    return (eps_map, target_eps_map, o.mask), settings


def fused_loss(input: Tensor, target: Tensor, o: Options) -> Tensor:
    """The loss of checked arguments, on a device with a kernel."""
    maps, settings = split_options(o)
    reduction = CHOICES["reduction"].index(o.reduction)
    if torch.compiler.is_compiling():  # which refuses one tensor in two places
        target = target.view_as(target)
        maps = tuple(m if m is None else m.view_as(m) for m in maps)  # type: ignore[assignment]
    # A graph that outlives this call holds the bare op, whose gradient is in _direct_calls.py.
    wants_gradient = torch.is_grad_enabled() and (input.requires_grad or target.requires_grad)
    if wants_gradient and not is_recording():
        wanted = (input.requires_grad, target.requires_grad)
        loss: Tensor = _apply(input, target, *maps, settings, reduction, wanted)[0]
        return loss
    return _forward(input, target, maps, settings, reduction, (False, False))[0]


def _forward(
    input: Tensor, target: Tensor, maps: Maps, settings: Settings, reduction: int, wanted: Wanted
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    normalize = _is_normalized(input, target, wanted)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _ops.call(
        _ops.ngf_forward, input, target, *maps, *settings, reduction, normalize, *wanted
    )
    return result


def _is_normalized(input: Tensor, target: Tensor, wanted: Wanted) -> bool:
    """Whether forward stores the gradient of the loss.

    The gradient of a mean underflows in a half type: there, that of the sum is stored.
    """
    images = zip((input, target), wanted, strict=True)
    return not any(image.dtype in HALF_DTYPES for image, is_wanted in images if is_wanted)


def _only(wanted: Wanted, gradients: Sequence[Tensor]) -> Gradients:
    input_grad, target_grad = gradients
    return input_grad if wanted[0] else None, target_grad if wanted[1] else None


class _FusedLoss(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor,
        target: Tensor,
        eps_map: Tensor | None,
        target_eps_map: Tensor | None,
        mask: Tensor | None,
        settings: Settings,
        reduction: int,
        wanted: Wanted,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _forward(input, target, (eps_map, target_eps_map, mask), settings, reduction, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.settings, ctx.reduction, ctx.wanted = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.handed_out = False

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * 8
        input, target, *maps, grad_input, grad_target, factor = ctx.saved_tensors
        gradients: Gradients
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gradients = _differentiable_gradients(upstream, input, target, tuple(maps), ctx)
        elif CHOICES["reduction"][ctx.reduction] == "none":
            gradients = _recompute(upstream, input, target, tuple(maps), ctx.settings, ctx.wanted)
        else:
            if ctx.handed_out:
                _, grad_input, grad_target, _ = _forward(
                    input, target, tuple(maps), ctx.settings, ctx.reduction, ctx.wanted
                )
            stored = _only(ctx.wanted, (grad_input, grad_target))
            unscaled_by = None if _is_normalized(input, target, ctx.wanted) else factor
            gradients = scale_stored(stored, upstream, unscaled_by, ctx)
        return (*gradients, *(None,) * 6)


_apply_eagerly = eager_apply(_FusedLoss)


def _apply(*args: object) -> tuple[Tensor, ...]:
    apply = _apply_eagerly if is_eager() else _FusedLoss.apply
    result: tuple[Tensor, ...] = apply(*args)
    return result


def _recompute(
    upstream: Tensor, input: Tensor, target: Tensor, maps: Maps, settings: Settings, wanted: Wanted
) -> Gradients:
    gradients = _ops.call(_ops.ngf_backward, upstream, input, target, *maps, *settings, *wanted)
    return _only(wanted, gradients)


def scale_stored(stored: Gradients, upstream: Tensor, factor: Tensor | None, ctx: Any) -> Gradients:
    """What forward has stored times ``upstream`` and ``factor``, in the same memory if it can be.

    Then ``ctx.handed_out`` says so.
    """
    if torch.compiler.is_compiling() or is_batched(upstream):
        scale = _product(upstream, factor)
        grad_input, grad_target = (g if g is None else (g * scale).to(g.dtype) for g in stored)
        return grad_input, grad_target
    ctx.handed_out = True
    # Through .data, because the version of a saved tensor must not change: the node may be asked
    # again.
    grad_input, grad_target = (g if g is None else g.data for g in stored)
    for gradient in (grad_input, grad_target):
        if gradient is not None:
            _scale_in_place(gradient, upstream, factor)
    return grad_input, grad_target


def _scale_in_place(gradient: Tensor, upstream: Tensor, factor: Tensor | None) -> None:
    if type(gradient) is Tensor and gradient.device.type in _ops.FUSED_DEVICES:
        _ops.call(_ops.ngf_scale_, gradient, upstream, factor)
    else:  # a DTensor, say
        gradient.mul_(_product(upstream, factor))


def _product(upstream: Tensor, factor: Tensor | None) -> Tensor:
    return upstream if factor is None else upstream * factor


def _differentiable_gradients(
    upstream: Tensor, input: Tensor, target: Tensor, maps: Maps, ctx: Any
) -> Gradients:
    settings: Settings = ctx.settings
    options = Options(
        settings.eps if maps[0] is None else maps[0],
        settings.target_eps if maps[1] is None else maps[1],
        CHOICES["eps_mode"][settings.eps_mode],
        CHOICES["operator"][settings.operator],
        settings.spacing,
        maps[2],
        settings.weight,
        CHOICES["reduction"][ctx.reduction],
    )
    loss = partial(reference.loss_from_options, o=options)
    vjp = torch.func.vjp(loss, input, target)[1]
    return _only(ctx.wanted, vjp(upstream))
