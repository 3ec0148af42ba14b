# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Gives derivatives to ops that are called directly, without the autograd.Function of the package.

A graph of torch.export or torch.jit.trace holds the bare ops, as does one of torch.compile that has
torch.func in it, and anybody may call ``torch.ops.nec_ext``. There the derivative of ngf_forward is
computed from the images in backward. A derivative that an op lacks raises RuntimeError, where torch
would silently leave it out.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._arguments import CHOICES, Options
from ._gradient import differentiable_gradients
from ._torch import Keys, apply_in_kernel, has_tangent, redispatch_below_autograd

TENSORS = ("input", "target", "eps_map", "target_eps_map", "mask")  # the first arguments of the op


class _DirectLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: Keys, *arguments: Any) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = redispatch_below_autograd(_ops.ngf_forward, keys, *arguments)
        ctx.save_for_backward(*arguments[: len(TENSORS)], outputs[-1])
        ctx.options = _options(arguments)
        ctx.mark_non_differentiable(*outputs[1:])
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, upstream: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        _, *needs = ctx.needs_input_grad[: 1 + len(TENSORS)]
        if upstream is not None:
            *tensors, factor = ctx.saved_tensors
            gradients[1 : 1 + len(needs)] = differentiable_gradients(
                upstream, tensors, (None, None), None, factor, ctx.options, needs
            )
        return tuple(gradients)


def _options(arguments: tuple[Any, ...]) -> Options:
    named = _named(_ops.ngf_forward, arguments)
    given = {
        name: CHOICES[name][value] if name in CHOICES else value
        for name, value in named.items()
        if name in Options._fields
    }
    return Options(**given)._replace(mask=None, spacing=tuple(given["spacing"]))


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
    if _check_differentiable(_ops.ngf_forward, arguments, by=TENSORS):
        return apply_in_kernel(_DirectLoss, keys, *arguments)
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
