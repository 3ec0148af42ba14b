# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The gradient of the fused loss, as a function that can be differentiated again.

``create_graph=True`` and torch.func ask for it. The gradient itself is the fused one; only its own
derivative goes through the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _ops, reference
from ._arguments import CHOICES, HALF_DTYPES, Gradients, Maps, Options
from ._torch import is_batched, is_forward_mode, is_transforming

Tensors = Sequence[Tensor | None]  # input, target, eps, target_eps, mask, as in a call of an op


def differentiable_gradients(
    upstream: Tensor,
    tensors: Tensors,
    stored: Gradients,
    unscaled_by: Tensor | None,
    factor: Tensor,
    o: Options,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Compute the gradients by those of the tensors that need one.

    Args:
        upstream: the gradient by the loss.
        tensors: of the call.
        stored: the gradients by the images that forward has stored; without them they are computed
            from the images.
        unscaled_by: the factor that stored gradients lack.
        factor: the factor of the loss.
        o: the options.
        needs: whether each of the tensors needs a gradient.
    """
    # An autograd.Function has neither forward mode nor a graph under is_grads_batched.
    is_legacy = is_batched(upstream) and not is_transforming()
    if is_forward_mode() or (is_legacy and torch.is_grad_enabled()):
        return _reference_gradients(upstream, tensors, o, needs)
    given = (upstream, *tensors, *stored, unscaled_by, factor, o, tuple(needs))
    computed = iter(_FusedGradient.apply(*given))  # type: ignore[no-untyped-call]
    return [next(computed) if is_needed else None for is_needed in needs]


class _FusedGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(upstream: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        *tensors, stored_input, stored_target, unscaled_by, factor, o, needs = rest
        stored = (stored_input, stored_target)
        by_images: Tensors = (None, None)
        if any(g is not None for g in stored):
            by_images = [g if g is None else scaled(g, upstream, unscaled_by) for g in stored]
        elif any(needs[:2]):
            per_voxel, numbers = _per_voxel(upstream, factor, o)
            by_images = _ops.call(_ops.ngf_backward, per_voxel, *tensors, *numbers, *needs[:2])
        by_maps = map_gradients(upstream, tensors, o, factor, needs[2:])
        gradients = zip((*by_images, *by_maps), needs, strict=True)
        return tuple(g for g, is_needed in gradients if g is not None and is_needed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *_, ctx.options, ctx.needs = inputs
        ctx.save_for_backward(*inputs[:6])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        def gradients(upstream: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
            computed = _reference_gradients(upstream, tensors, ctx.options, ctx.needs)
            return tuple(g for g in computed if g is not None)

        needs = ctx.needs_input_grad
        saved = ctx.saved_tensors
        computed = _vjp(gradients, saved, needs[: len(saved)], cotangents)
        return (*computed, *[None] * (len(needs) - len(saved)))


def _reference_gradients(
    upstream: Tensor, tensors: Tensors, o: Options, needs: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients in a graph that can be differentiated again."""

    def loss(input: Tensor, target: Tensor, *maps: Tensor | None) -> Tensor:
        return reference.loss_from_options(
            input, target, o.with_tensors((maps[0], maps[1], maps[2]))
        )

    return _vjp(loss, tensors, needs, upstream)


def _vjp(
    function: Callable[..., Any], arguments: Tensors, needs: Sequence[bool], cotangent: Any
) -> list[Tensor | None]:
    """Compute the gradients of a function by the arguments that need one."""

    def of_needed(*needed: Tensor) -> Any:
        left = iter(needed)
        return function(*(next(left) if n else a for a, n in zip(arguments, needs, strict=True)))

    leaves = [a for a, is_needed in zip(arguments, needs, strict=True) if is_needed]
    computed = iter(torch.func.vjp(of_needed, *leaves)[1](cotangent))
    return [next(computed) if is_needed else None for is_needed in needs]


def map_gradients(
    upstream: Tensor, tensors: Tensors, o: Options, factor: Tensor, needs: Sequence[bool]
) -> Maps:
    """Compute the gradients of eps, target_eps and mask, summed over what they broadcast."""
    input, target, eps, target_eps, mask = tensors
    by_eps: list[Tensor | None] = [None, None]
    if any(needs[:2]):
        per_voxel, numbers = _per_voxel(upstream, factor, o)
        computed = _ops.call(_ops.ngf_eps_backward, per_voxel, *tensors, *numbers, *needs[:2])
        pairs = zip((eps, target_eps), computed, strict=True)
        by_eps = [_sum_to(g, m) if m is not None and g.numel() else None for m, g in pairs]
    by_mask = None
    if mask is not None and needs[2]:
        numbers, no_gradient = o.numbers(), (False, False, False)
        unmasked = (input, target, eps, target_eps, None)
        none = CHOICES["reduction"].index("none")
        losses = _ops.call(_ops.ngf_forward, *unmasked, *numbers, none, *no_gradient)[0]
        if o.reduction == "mean":
            weights = mask.to(losses.dtype)
            total = weights.broadcast_to(losses.shape).sum(dtype=torch.float64)
            mean = (weights * losses).sum(dtype=torch.float64) / total
            losses = torch.where(total == 0, 0.0, (losses - mean) / total)
        by_mask = _sum_to(upstream * losses, mask)
    return by_eps[0], by_eps[1], by_mask


def _per_voxel(upstream: Tensor, factor: Tensor, o: Options) -> tuple[Tensor, tuple[Any, ...]]:
    """Return the gradient by the losses per voxel, and the options of an op that takes it."""
    if o.reduction == "none":
        return upstream, o.numbers()
    return upstream * factor, o._replace(weight=1.0).numbers()  # the factor has the weight


def scaled(stored: Tensor, upstream: Tensor, factor: Tensor | None) -> Tensor:
    """Multiply a stored gradient by numbers."""
    scale = product(upstream, factor)
    # vmap rounds a number to the dtype of what it multiplies, and a half type may not hold it.
    is_rounded = torch.compiler.is_compiling() or is_batched(scale)
    wide = stored.float() if is_rounded and stored.dtype in HALF_DTYPES else stored
    return (wide * scale).to(stored.dtype)


def product(upstream: Tensor, factor: Tensor | None) -> Tensor:
    """Multiply two numbers, of which the second may be absent."""
    return upstream if factor is None else upstream * factor


def _sum_to(gradient: Tensor, map: Tensor) -> Tensor:
    """Sum a gradient per voxel over the axes along which a map was broadcast."""
    missing = gradient.dim() - map.dim()
    axes = [k for k, n in enumerate(gradient.shape) if k < missing or map.shape[k - missing] < n]
    if axes:  # in float64, as every sum over voxels
        gradient = gradient.sum(axes, dtype=torch.float64, keepdim=True)
    return gradient.reshape(map.shape).to(map.dtype)
