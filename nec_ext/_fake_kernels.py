# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Tells torch what the ops return, and runs them under torch.func.vmap."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ._ops import ngf_backward, ngf_eps_backward, ngf_forward
from ._values import loss_dtype


def _gradients(
    input: Tensor, target: Tensor, input_grad: bool, target_grad: bool
) -> tuple[Tensor, Tensor]:
    absent = input.new_empty((0,), dtype=loss_dtype(input, target))
    return (
        torch.empty_like(input) if input_grad else absent,
        torch.empty_like(target) if target_grad else absent.clone(),
    )


# The common arguments of the ops, as csrc/ops/schema.cpp lists them, are ``*options`` here: torch
# hands all arguments over by position.


@torch.library.register_fake("nec_ext::ngf_forward")  # type: ignore[untyped-decorator]
def _(input: Tensor, target: Tensor, *options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, reduction, _, input_grad, target_grad = options
    dtype = loss_dtype(input, target)
    per_voxel = reduction == 0
    loss = input.new_empty(input.shape if per_voxel else (), dtype=dtype)
    wanted = [grad and not per_voxel for grad in (input_grad, target_grad)]
    gradients = _gradients(input, target, *wanted)
    return loss, *gradients, input.new_empty((), dtype=dtype)


@torch.library.register_fake("nec_ext::ngf_backward")  # type: ignore[untyped-decorator]
def _(upstream: Tensor, input: Tensor, target: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    *_, input_grad, target_grad = options
    return _gradients(input, target, input_grad, target_grad)


@torch.library.register_fake("nec_ext::ngf_eps_backward")  # type: ignore[untyped-decorator]
def _(upstream: Tensor, input: Tensor, target: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    *_, eps_grad, target_eps_grad = options
    dtype = loss_dtype(input, target)
    grad_eps, grad_target_eps = (
        input.new_empty(input.shape if wanted else (0,), dtype=dtype)
        for wanted in (eps_grad, target_eps_grad)
    )
    return grad_eps, grad_target_eps


@torch.library.register_fake("nec_ext::ngf_sums_")  # type: ignore[untyped-decorator]
def _(input: Tensor, target: Tensor, *options: Any) -> Tensor:
    *_, begin, end, per_plane, _, _, _ = options
    return input.new_empty((end - begin if per_plane else 1,), dtype=torch.float64)


@torch.library.register_fake("nec_ext::ngf_scale_")  # type: ignore[untyped-decorator]
def _(gradient: Tensor, upstream: Tensor, factor: Tensor | None) -> None:
    pass


def _one_by_one(op: Any, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
    """Run an op under torch.func.vmap, in a loop: samples are large enough to lose no time."""
    pairs = list(zip(args, in_dims, strict=True))
    samples = [
        op(*(a.select(dim, k) if isinstance(dim, int) else a for a, dim in pairs))
        for k in range(info.batch_size)
    ]
    outputs = tuple(torch.stack(parts) for parts in zip(*samples, strict=True))
    return outputs, (0,) * len(outputs)


for _op in (ngf_forward, ngf_backward, ngf_eps_backward):
    torch.library.register_vmap(_op._schema.name, partial(_one_by_one, _op))
