# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The ops outside of the package's autograd.Function: traced and called directly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    assert_gradient_close,
    assert_result_close,
    evaluate,
    expected_result,
)
from inputs import SMALL, Case, by_name
from ops import op_arguments
from torch import Tensor
from torch.autograd import forward_ad

import nec_ext

forward = torch.ops.nec_ext.ngf_forward.default
backward = torch.ops.nec_ext.ngf_backward.default
sums = torch.ops.nec_ext.ngf_sums_.default

OPTIONS = [
    {},
    {"reduction": "sum", "eps_mode": "quadrature", "weight": -1.5, "spacing": 0.7},
    {"reduction": "none", "operator": "sobel", "weight": 0.5},
]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("requires_grad", "options"), [*zip([False, True, True], OPTIONS, strict=True)], ids=str
)
def test_traced(requires_grad: bool, options: dict[str, Any]) -> None:
    input, target = torch.rand(2, 2, 1, 6, 7)
    example = input.clone().requires_grad_(requires_grad)
    traced = torch.jit.trace(nec_ext.NGFLoss(**options), (example, target))
    found = evaluate(traced, input, target)
    assert_result_close(found, expected_result(input, target, **options))


@covering(case=by_name("noise_3d", "channels_last_2d", "strided_3d"), target_only=[False, True])
def test_called_directly(case: Case, target_only: bool) -> None:
    """The gradient of the loss is right whatever the op was asked to store."""
    dtypes = (torch.float64, torch.float64)
    (_, _, *maps), numbers = op_arguments(case, dtypes, maps=True)
    names = ("eps", "target_eps", "mask")
    options = {
        **dict(zip(names, maps, strict=True)),
        "eps_mode": "quadrature",
        "spacing": numbers[4],
        "operator": "forward",
        "weight": 0.7,
    }

    def loss(input: Tensor, target: Tensor) -> Tensor:
        return forward(input, target, *maps, *numbers, 1, False, False, target_only)[0]

    wanted = "target" if target_only else "both"
    found = evaluate(loss, *case.images(*dtypes), wanted=wanted)
    assert_result_close(found, expected_result(*case.images(*dtypes), wanted=wanted, **options))


def test_torch_finds_the_gradient_in_order() -> None:
    for case in by_name("noise_2d", "strided_3d"):
        tensors, numbers = op_arguments(case, (torch.float32, torch.float64), maps=True)
        torch.library.opcheck(forward, (*tensors, *numbers, 1, True, False, False))


def test_no_derivative_is_left_out() -> None:
    tensors, numbers = op_arguments(SMALL[0], (torch.float64, torch.float64), maps=True)
    rest = (*numbers, 1, True, False, False)
    input, target, *maps = (tensor.detach() for tensor in tensors)
    for k, name in enumerate(("eps_map", "target_eps_map")):
        required = [m.detach().requires_grad_(j == k) if j < 2 else m for j, m in enumerate(maps)]
        with pytest.raises(RuntimeError, match=f"ngf_forward has no derivative by {name}: call"):
            forward(input, target, *required, *rest)
    with pytest.raises(RuntimeError, match="ngf_backward has no derivative by input"):
        backward(torch.tensor(1.0), *tensors, *numbers, True, False)
    with pytest.raises(RuntimeError, match="ngf_sums_ has no derivative by input"):
        sums(*tensors, *numbers, 2, 0, 9, False, False, None, None)
    with pytest.raises(RuntimeError, match="ngf_scale_ has no derivative by gradient"):
        torch.ops.nec_ext.ngf_scale_.default(tensors[0], torch.tensor(2.0), None)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        forward(forward_ad.make_dual(input, target), target, *maps, *rest)
    loss = forward(*tensors, *rest)[0]
    with pytest.raises(RuntimeError, match="ngf_backward has no derivative by"):
        torch.autograd.grad(loss, tensors[0], create_graph=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused() -> None:
    for loss in (nec_ext.ngf_loss, nec_ext.NGFLoss(), torch.nn.Sequential(nec_ext.NGFLoss())):
        with pytest.raises(NotImplementedError, match=r"torch\.jit\.script cannot compile"):
            torch.jit.script(loss)


@covering(
    case=by_name("noise_2d", "strided_3d", "transposed_3d", "chunks_3d"),
    dtype=[torch.float64, torch.float16],
)
def test_scaled_in_place(case: Case, dtype: torch.dtype) -> None:
    gradient, _ = case.images(dtype)
    whole = torch.empty(0, dtype=torch.uint8).set_(gradient.untyped_storage())
    before = whole.clone()
    upstream, factor = torch.tensor(-2.5), torch.tensor(0.7)
    expected = (gradient.double() * upstream.double() * factor.double()).to(dtype)
    torch.ops.nec_ext.ngf_scale_(gradient, upstream, factor)
    assert_gradient_close(gradient, expected)
    assert 0 < (before != whole).sum() <= gradient.numel() * gradient.element_size()
