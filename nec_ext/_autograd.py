# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss as a torch.autograd.Function.

Forward computes the loss and, where one is required, its gradient in the same sweep; backward
multiplies the stored gradient by one number. The gradient's buffer is handed out by the first
backward, scaled in place, so that a training step holds one volume and no more. A second backward
of a retained graph, and a loss per voxel, compute the gradient from the images. A gradient that may
be differentiated itself is a function of its own (_gradient.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _ops
from ._arguments import CHOICES, HALF_DTYPES, Gradients, Maps, Options, Wanted
from ._gradient import differentiable_gradients, map_gradients, product, scaled
from ._torch import eager_apply, is_batched, is_eager, is_forward_mode, takes_bare_op
from ._values import has_values

if _ops.extension is not None:
    from . import _direct_calls as _direct_calls
    from . import _fake_kernels as _fake_kernels


class Stored(NamedTuple):
    """The gradients that forward stores, in the order of the schema."""

    normalized: bool  # of the loss itself; else of the sum over voxels
    input: bool
    target: bool


# The options and `stored`, which apply takes after the tensors, have no gradient.
_OPTIONS = (None, None)


def fused_loss(input: Tensor, target: Tensor, o: Options) -> Tensor:
    """Return the loss of checked arguments, on a device with a kernel."""
    maps, o = o.tensors(), o.without_tensors()
    if torch.compiler.is_compiling():  # which refuses one tensor in two places
        target = target.view_as(target)
        maps = tuple(m if m is None else m.view_as(m) for m in maps)  # type: ignore[assignment]
    needs = [t is not None and t.requires_grad for t in (input, target, *maps)]
    if any(needs) and torch.is_grad_enabled() and not takes_bare_op():
        stored = _stored(input, target, (input.requires_grad, target.requires_grad))
        loss: Tensor = _apply(input, target, *maps, o, stored)
        return loss
    return _forward(input, target, maps, o, Stored(True, False, False))[0]


def loss_and_gradients(input: Tensor, target: Tensor, o: Options, wanted: Wanted) -> list[Tensor]:
    """Return the loss, and its gradients by the images that want one."""
    maps, o = o.tensors(), o.without_tensors()
    stored = _stored(input, target, wanted)
    loss, grad_input, grad_target, factor = _forward(input, target, maps, o, stored)
    gradients = _only(stored, (grad_input, grad_target))
    if not stored.normalized:
        gradients = _scale(gradients, factor, None, is_in_place=_allows_in_place(factor))
    return [loss, *(g for g in gradients if g is not None)]


def _forward(
    input: Tensor, target: Tensor, maps: Maps, o: Options, stored: Stored
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reduction = CHOICES["reduction"].index(o.reduction)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _ops.call(
        _ops.ngf_forward, input, target, *maps, *o.numbers(), reduction, *stored
    )
    return result


def _stored(input: Tensor, target: Tensor, wanted: Wanted) -> Stored:
    """Return what forward stores of the wanted gradients.

    The gradient of a mean underflows in a half type, so that forward stores the gradient of the sum
    over voxels there.
    """
    images = zip((input, target), wanted, strict=True)
    is_half = any(image.dtype in HALF_DTYPES for image, is_wanted in images if is_wanted)
    return Stored(not is_half, *wanted)


def _only(stored: Stored, gradients: Sequence[Tensor | None]) -> Gradients:
    input_grad, target_grad = gradients
    return input_grad if stored.input else None, target_grad if stored.target else None


class _FusedLoss(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *maps, o, stored = rest
        return _forward(input, target, tuple(maps), o, stored)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options, ctx.stored = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.consumed = False

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * len(ctx.needs_input_grad)
        *tensors, grad_input, grad_target, factor = ctx.saved_tensors
        input, target, *maps = tensors
        o, stored, needs = ctx.options, ctx.stored, ctx.needs_input_grad[: len(tensors)]
        gradients = _only(stored, (grad_input, grad_target))
        unscaled_by = None if stored.normalized else factor
        can_be_differentiated = torch.is_grad_enabled() and not torch.compiler.is_compiling()
        if can_be_differentiated or is_forward_mode():
            if o.reduction == "none" or ctx.consumed:
                gradients = (None, None)
            computed = differentiable_gradients(
                upstream, tensors, gradients, unscaled_by, factor, o, needs
            )
            return (*computed, *_OPTIONS)
        wanted = stored[1:]
        if o.reduction == "none" and any(wanted):
            by_images = _ops.call(_ops.ngf_backward, upstream, *tensors, *o.numbers(), *wanted)
            gradients = _only(stored, by_images)
        elif any(wanted):
            if ctx.consumed:
                gradients = _only(stored, _forward(input, target, tuple(maps), o, stored)[1:3])
            gradients = scale_stored(gradients, upstream, unscaled_by, ctx)
        of_maps: Maps = (None, None, None)
        if any(needs[2:]):
            of_maps = map_gradients(upstream, tensors, o, factor, needs[2:])
        return (*gradients, *of_maps, *_OPTIONS)


_apply_eagerly = eager_apply(_FusedLoss)


def _apply(*arguments: object) -> Tensor:
    apply = _apply_eagerly if is_eager() else _FusedLoss.apply
    loss: Tensor = apply(*arguments)[0]
    return loss


def scale_stored(stored: Gradients, upstream: Tensor, factor: Tensor | None, ctx: Any) -> Gradients:
    """Multiply the stored gradients by ``upstream`` and ``factor``, in place where possible.

    In place, ``ctx.consumed`` becomes True: the stored gradients are gone.
    """
    is_in_place = _allows_in_place(upstream)
    ctx.consumed = ctx.consumed or is_in_place
    return _scale(stored, upstream, factor, is_in_place=is_in_place)


def _allows_in_place(upstream: Tensor) -> bool:
    return not (torch.compiler.is_compiling() or is_batched(upstream))


def _scale(
    gradients: Gradients, upstream: Tensor, factor: Tensor | None, *, is_in_place: bool
) -> Gradients:
    if not is_in_place:
        grad_input, grad_target = (
            g if g is None else scaled(g, upstream, factor) for g in gradients
        )
        return grad_input, grad_target
    # Through .data, because the version of a saved tensor must not change: the node may be asked
    # again.
    grad_input, grad_target = (g if g is None else g.data for g in gradients)
    for gradient in (grad_input, grad_target):
        if gradient is not None:
            _scale_in_place(gradient, upstream, factor)
    return grad_input, grad_target


def _scale_in_place(gradient: Tensor, upstream: Tensor, factor: Tensor | None) -> None:
    if has_values(upstream) and factor is None and upstream.item() == 1:
        return  # as after loss.backward()
    if type(gradient) is Tensor and gradient.device.type in _ops.FUSED_DEVICES:
        _ops.call(_ops.ngf_scale_, gradient, upstream, factor)
    else:  # a DTensor, say
        gradient.mul_(product(upstream, factor))
