# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss and its gradient without autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import covering
from helpers import ALL_FORMULAS, DTYPES, evaluate
from inputs import SMALL, Case, generator
from torch import Tensor

import nec_ext
from nec_ext import _devices, _ops


def options_of(case: Case, maps: bool) -> dict[str, Any]:
    rng = generator("without autograd")
    if not maps:
        return {"eps": 0.2}
    mask = torch.rand(case.shape, generator=rng)
    return {"eps": (0.1 + torch.rand(case.shape, generator=rng)).requires_grad_(), "mask": mask}


@covering(
    case=SMALL,
    dtype=DTYPES,
    reduction=["mean", "sum"],
    target_grad=[False, True],
    maps=[False, True],
    weight=[1.0, -2.5],
    **ALL_FORMULAS,
)
def test_same_bits_as_autograd(
    case: Case,
    dtype: torch.dtype,
    target_grad: bool,
    maps: bool,
    operator: str,
    eps_mode: str,
    form: str,
    reduction: str,
    weight: float,
) -> None:
    input, target = case.images(dtype)
    options = {
        **options_of(case, maps),
        **{"operator": operator, "eps_mode": eps_mode, "form": form},
        **{"reduction": reduction, "weight": weight},
    }
    wanted = "both" if target_grad else "input"
    expected = evaluate(nec_ext.ngf_loss, input, target, 1.0, wanted, **options)
    for image in (input, target):
        image.requires_grad_()
    actual = nec_ext.ngf_loss_and_gradient(input, target, target_grad=target_grad, **options)
    assert not any(tensor.requires_grad for tensor in actual)
    for one, other in zip(actual, expected.tensors, strict=True):
        assert torch.equal(one, other)


def test_device_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    input, target = SMALL[1].images(torch.float64)
    options = options_of(SMALL[1], maps=True)
    expected = nec_ext.ngf_loss_and_gradient(input, target, target_grad=True, **options)
    monkeypatch.setattr(_ops, "FUSED_DEVICES", frozenset())
    monkeypatch.setattr(_devices, "_warned", set())
    with pytest.warns(RuntimeWarning, match="no kernels"):
        actual = nec_ext.ngf_loss_and_gradient(input, target, target_grad=True, **options)
    assert not any(tensor.requires_grad for tensor in actual)
    torch.testing.assert_close(actual, expected)


def test_compiled() -> None:
    def step(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        warped = 2 * input
        loss, gradient = nec_ext.ngf_loss_and_gradient(warped, target, eps=0.2)
        return loss, torch.autograd.grad(warped, input, gradient)[0]

    input, target = SMALL[0].images()
    input.requires_grad_()
    expected = step(input, target)
    actual = torch.compile(step)(input, target)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_transforms(dtype: torch.dtype) -> None:
    input, target = SMALL[1].images(dtype)

    def gradient(input: Tensor) -> Tensor:
        return nec_ext.ngf_loss_and_gradient(input, target)[1]

    batch = torch.stack([input, target])
    expected = torch.stack([gradient(image) for image in batch])
    assert torch.equal(torch.func.vmap(gradient)(batch), expected)
    _, actual = torch.func.jvp(gradient, (input,), (target,))
    plain = torch.func.grad(lambda i: nec_ext.reference.ngf_loss(i, target))
    torch.testing.assert_close(actual, torch.func.jvp(plain, (input,), (target,))[1])


@pytest.mark.parametrize("reduction", ["none", "sample"])
def test_more_than_one_number_is_refused(reduction: str) -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum' for a gradient"):
        nec_ext.ngf_loss_and_gradient(*SMALL[0].images(), reduction=reduction)
