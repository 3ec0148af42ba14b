# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Gives derivatives to ops that are called directly, without the autograd.Function of the package.

A graph of torch.export or torch.jit.trace holds the bare ops, and anybody may call
``torch.ops.nec_ext``. There the derivative of ngf_forward is computed from the images in backward.
A derivative that an op lacks raises RuntimeError, where torch would silently leave it out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._torch import Keys, has_tangent, redispatch_below_autograd

IMAGES = ("input", "target")
MAPS = ("eps_map", "target_eps_map", "mask")


class _DirectLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Keys, *arguments: Any) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = redispatch_below_autograd(_ops.ngf_forward, keys, *arguments)
        named = _named(_ops.ngf_forward, arguments)
        ctx.save_for_backward(*(named[name] for name in (*IMAGES, *MAPS)), outputs[-1])
        ctx.named = {name: value for name, value in named.items() if not torch.is_tensor(value)}
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        _, *needed = ctx.needs_input_grad
        gradients: list[Tensor | None] = [None] * len(needed)
        if upstream is not None:
            *tensors, factor = ctx.saved_tensors
            given = {
                **ctx.named,
                **dict(zip((*IMAGES, *MAPS), tensors, strict=True)),
                "upstream": upstream * factor,
                "weight": 1.0,  # the factor has it
                "input_grad": needed[0],
                "target_grad": needed[1],
            }
            names = [argument.name for argument in _ops.ngf_backward._schema.arguments]
            computed = _ops.ngf_backward(*(given[name] for name in names))
            gradients[:2] = (g if n else None for g, n in zip(computed, needed, strict=False))
        return None, *gradients


def _named(op: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip((a.name for a in op._schema.arguments), arguments, strict=True))


def _check_differentiable(op: Any, arguments: tuple[Any, ...], by: tuple[str, ...] = ()) -> bool:
    """Return whether a derivative is asked for; raise RuntimeError where it does not exist."""
    asked = False
    for name, value in _named(op, arguments).items():
        if not isinstance(value, Tensor):
            continue
        if has_tangent(value):
            raise RuntimeError(
                f"{op.name()} has no forward-mode derivative: call nec_ext.ngf_loss, which has one"
            )
        if torch.is_grad_enabled() and value.requires_grad:
            if name not in by:
                raise RuntimeError(
                    f"{op.name()} has no derivative by {name}: call nec_ext.ngf_loss, or detach it"
                )
            asked = True
    return asked


def _call_loss(keys: Keys, *arguments: Any) -> Any:
    if _check_differentiable(_ops.ngf_forward, arguments, by=IMAGES):
        return _DirectLoss.apply(keys, *arguments)  # type: ignore[no-untyped-call]
    return redispatch_below_autograd(_ops.ngf_forward, keys, *arguments)


def _call_undifferentiated(op: Any, keys: Keys, *arguments: Any) -> Any:
    _check_differentiable(op, arguments)
    return redispatch_below_autograd(op, keys, *arguments)


# torch forgets these kernels when the library object is deleted.
_make_library: Any = torch.library.Library
_library = _make_library("nec_ext", "IMPL")
_library.impl("ngf_forward", _call_loss, "Autograd", with_keyset=True)
for _op in (_ops.ngf_backward, _ops.ngf_eps_backward, _ops.ngf_sums_, _ops.ngf_scale_):
    _library.impl(_op, partial(_call_undifferentiated, _op), "Autograd", with_keyset=True)
