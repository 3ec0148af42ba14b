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
from typing import Any

import torch
from torch import Tensor

from . import _ops, reference
from ._arguments import CHOICES, Gradients, Maps, Options, Wanted, has_values
from ._torch import eager_apply, is_batched, is_eager, is_recording

if _ops.extension is not None:
    from . import _direct_calls as _direct_calls
    from . import _fake_kernels as _fake_kernels

HALF_DTYPES = (torch.float16, torch.bfloat16)


def fused_loss(input: Tensor, target: Tensor, o: Options) -> Tensor:
    """Return the loss of checked arguments, on a device with a kernel."""
    maps, o = o.tensors(), o.without_tensors()
    if torch.compiler.is_compiling():  # which refuses one tensor in two places
        target = target.view_as(target)
        maps = tuple(m if m is None else m.view_as(m) for m in maps)  # type: ignore[assignment]
    # A graph that outlives this call holds the bare op, whose gradient is in _direct_calls.py.
    needs = [t is not None and t.requires_grad for t in (input, target, *maps)]
    if any(needs) and torch.is_grad_enabled() and not is_recording():
        loss: Tensor = _apply(input, target, *maps, o, (input.requires_grad, target.requires_grad))
        return loss
    return _forward(input, target, maps, o, (False, False))[0]


def loss_and_gradients(input: Tensor, target: Tensor, o: Options, wanted: Wanted) -> list[Tensor]:
    """Return the loss, and its gradients by the images that want one."""
    maps, o = o.tensors(), o.without_tensors()
    loss, grad_input, grad_target, factor = _forward(input, target, maps, o, wanted)
    gradients = [g for g in _only(wanted, (grad_input, grad_target)) if g is not None]
    if not _is_normalized(input, target, wanted):
        for gradient in gradients:
            _ops.call(_ops.ngf_scale_, gradient, factor, None)
    return [loss, *gradients]


def _forward(
    input: Tensor, target: Tensor, maps: Maps, o: Options, wanted: Wanted
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    reduction = CHOICES["reduction"].index(o.reduction)
    normalize = _is_normalized(input, target, wanted)
    result: tuple[Tensor, Tensor, Tensor, Tensor] = _ops.call(
        _ops.ngf_forward, input, target, *maps, *o.numbers(), reduction, normalize, *wanted
    )
    return result


def _is_normalized(input: Tensor, target: Tensor, wanted: Wanted) -> bool:
    """Return whether forward stores the gradient of the loss itself.

    The gradient of a mean underflows in a half type, so that forward stores the gradient of the sum
    over voxels there.
    """
    images = zip((input, target), wanted, strict=True)
    return not any(image.dtype in HALF_DTYPES for image, is_wanted in images if is_wanted)


def _only(wanted: Wanted, gradients: Sequence[Tensor]) -> Gradients:
    input_grad, target_grad = gradients
    return input_grad if wanted[0] else None, target_grad if wanted[1] else None


class _FusedLoss(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *maps, o, wanted = rest
        return _forward(input, target, tuple(maps), o, wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options, ctx.wanted = inputs
        ctx.save_for_backward(*tensors, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.consumed = False

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        if upstream is None:
            return (None,) * 7
        input, target, *saved, grad_input, grad_target, factor = ctx.saved_tensors
        o, wanted, maps = ctx.options, ctx.wanted, (saved[0], saved[1], saved[2])
        by_maps = ctx.needs_input_grad[2:5]
        gradients: Gradients = (None, None)
        of_maps: Maps = (None, None, None)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return (*_by_reference(ctx, upstream, (input, target, *maps)), None, None)
        if any(by_maps):
            of_maps = _map_gradients(upstream, input, target, maps, o, factor, by_maps)
        if o.reduction == "none" and any(wanted):
            computed = _ops.call(
                _ops.ngf_backward, upstream, input, target, *maps, *o.numbers(), *wanted
            )
            gradients = _only(wanted, computed)
        elif any(wanted):
            if ctx.consumed:
                _, grad_input, grad_target, _ = _forward(input, target, maps, o, wanted)
            unscaled_by = None if _is_normalized(input, target, wanted) else factor
            gradients = scale_stored(
                _only(wanted, (grad_input, grad_target)), upstream, unscaled_by, ctx
            )
        return (*gradients, *of_maps, None, None)


def _by_reference(
    ctx: Any, upstream: Tensor, tensors: tuple[Tensor | None, ...]
) -> list[Tensor | None]:
    """Compute the gradients of images and maps in a graph that can be differentiated again."""
    needs = ctx.needs_input_grad[: len(tensors)]
    leaves = [t for t, is_needed in zip(tensors, needs, strict=True) if is_needed]

    def loss(*given: Tensor) -> Tensor:
        left = iter(given)
        input, target, *maps = (next(left) if n else t for t, n in zip(tensors, needs, strict=True))
        o = ctx.options.with_tensors(tuple(maps))
        return reference.loss_from_options(input, target, o)  # type: ignore[arg-type]

    computed = iter(torch.func.vjp(loss, *leaves)[1](upstream))
    return [next(computed) if is_needed else None for is_needed in needs]


def _map_gradients(
    upstream: Tensor,
    input: Tensor,
    target: Tensor,
    maps: Maps,
    o: Options,
    factor: Tensor,
    needs: Sequence[bool],
) -> Maps:
    """Compute the gradients of eps, target_eps and mask, summed over what they broadcast."""
    eps, target_eps, mask = maps
    by_eps: list[Tensor | None] = [None, None]
    if any(needs[:2]):
        per_voxel = upstream if o.reduction == "none" else upstream * factor
        weight = o.weight if o.reduction == "none" else 1.0  # the factor has it
        numbers = o._replace(weight=weight).numbers()
        computed = _ops.call(
            _ops.ngf_eps_backward, per_voxel, input, target, *maps, *numbers, *needs[:2]
        )
        pairs = zip((eps, target_eps), computed, strict=True)
        by_eps = [_sum_to(g, m) if m is not None and g.numel() else None for m, g in pairs]
    by_mask = None
    if mask is not None and needs[2]:
        unweighted = o._replace(reduction="none")
        losses = _forward(input, target, (eps, target_eps, None), unweighted, (False, False))[0]
        if o.reduction == "mean":
            weights = mask.to(losses.dtype)
            total = weights.broadcast_to(losses.shape).sum(dtype=torch.float64)
            mean = (weights * losses).sum(dtype=torch.float64) / total
            losses = torch.where(total == 0, 0.0, (losses - mean) / total)
        by_mask = _sum_to(upstream * losses, mask)
    return by_eps[0], by_eps[1], by_mask


def _sum_to(gradient: Tensor, map: Tensor) -> Tensor:
    """Sum a gradient per voxel over the axes along which a map was broadcast."""
    missing = gradient.dim() - map.dim()
    axes = [k for k, n in enumerate(gradient.shape) if k < missing or map.shape[k - missing] < n]
    if axes:  # in float64, as every sum over voxels
        gradient = gradient.sum(axes, dtype=torch.float64, keepdim=True)
    return gradient.reshape(map.shape).to(map.dtype)


_apply_eagerly = eager_apply(_FusedLoss)


def _apply(*arguments: object) -> Tensor:
    apply = _apply_eagerly if is_eager() else _FusedLoss.apply
    loss: Tensor = apply(*arguments)[0]
    return loss


def scale_stored(stored: Gradients, upstream: Tensor, factor: Tensor | None, ctx: Any) -> Gradients:
    """Multiply the stored gradients by ``upstream`` and ``factor``, in place where possible.

    In place, ``ctx.consumed`` becomes True: the stored gradients are gone.
    """
    if torch.compiler.is_compiling() or is_batched(upstream):
        scale = _product(upstream, factor)
        grad_input, grad_target = (g if g is None else (g * scale).to(g.dtype) for g in stored)
        return grad_input, grad_target
    ctx.consumed = True
    # Through .data, because the version of a saved tensor must not change: the node may be asked
    # again.
    grad_input, grad_target = (g if g is None else g.data for g in stored)
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
        gradient.mul_(_product(upstream, factor))


def _product(upstream: Tensor, factor: Tensor | None) -> Tensor:
    return upstream if factor is None else upstream * factor
