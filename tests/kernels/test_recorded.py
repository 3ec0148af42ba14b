# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The ops outside of the package's autograd.Function: exported, traced, called directly."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    as_leaves,
    assert_gradient_close,
    assert_result_close,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import SMALL, Case, by_name
from ops import op_arguments
from torch import Tensor
from torch.autograd import forward_ad

import nec_ext

forward = torch.ops.nec_ext.ngf_forward.default
backward = torch.ops.nec_ext.ngf_backward.default

OPTIONS = [
    {},
    {"reduction": "sum", "eps_mode": "quadrature", "weight": -1.5, "spacing": 0.7},
    {"reduction": "none", "operator": "sobel", "weight": 0.5},
]


class Network(torch.nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Conv3d(1, 1, 3, padding=1)
        self.loss = nec_ext.NGFLoss(**options)

    def forward(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return self.loss(self.layer(image), target, mask)


def gradients(network: Any, *images: Tensor) -> list[Tensor]:
    loss = network(*images)
    return list(torch.autograd.grad(loss, network.parameters(), random_upstream(loss.shape)))


@pytest.mark.parametrize(
    ("strict", "options"), [*zip([False, True, False], OPTIONS, strict=True)], ids=str
)
def test_exported(strict: bool, options: dict[str, Any]) -> None:
    image, target = torch.rand(2, 1, 1, 6, 5, 7)
    mask = torch.rand(6, 5, 7) > 0.3
    expected = gradients(Network(**options), image, target, mask)
    program = torch.export.export(Network(**options), (image, target, mask), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for module in (program.module(), torch.export.load(file).module()):
        for found, wanted in zip(gradients(module, image, target, mask), expected, strict=True):
            torch.testing.assert_close(found, wanted)


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


def call_arguments() -> tuple[list[Any], list[Any]]:
    return op_arguments(SMALL[0], (torch.float64, torch.float64), maps=True)


def test_no_derivative_is_left_out() -> None:
    tensors, numbers = call_arguments()
    rest = (*numbers, 1, True, False, False)
    with torch.no_grad():  # nobody asks
        forward(*tensors, *rest)
        backward(torch.tensor(1.0), *tensors, *numbers, True, False)
    images, maps = [image.detach() for image in tensors[:2]], tensors[2:]
    for k, name in enumerate(("eps_map", "target_eps_map")):
        required = [m.requires_grad_(j == k) if j < 2 else m for j, m in enumerate(maps)]
        with pytest.raises(RuntimeError, match=f"ngf_forward has no derivative by {name}: call"):
            forward(*images, *required, *rest)
    maps = [m.detach() for m in maps]
    with pytest.raises(RuntimeError, match="ngf_backward has no derivative by input"):
        backward(torch.tensor(1.0), *tensors[:2], *maps, *numbers, True, False)
    with pytest.raises(RuntimeError, match="ngf_sums_ has no derivative by input"):
        sums = torch.ops.nec_ext.ngf_sums_.default
        sums(*tensors[:2], *maps, *numbers, 2, 0, 9, False, False, None, None)
    with pytest.raises(RuntimeError, match="ngf_scale_ has no derivative by gradient"):
        torch.ops.nec_ext.ngf_scale_.default(tensors[0], torch.tensor(2.0), None)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        forward(forward_ad.make_dual(images[0], images[1]), images[1], *maps, *rest)


def test_no_second_derivative_is_left_out() -> None:
    tensors, numbers = call_arguments()
    input, target = as_leaves(*tensors[:2], "input")
    loss = forward(input, target, *tensors[2:], *numbers, 1, True, False, False)[0]
    with pytest.raises(RuntimeError, match="ngf_backward has no derivative by"):
        torch.autograd.grad(loss, input, create_graph=True)


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
    around = gradient.untyped_storage().nbytes()
    before = torch.empty(0, dtype=torch.uint8).set_(gradient.untyped_storage()).clone()
    upstream, factor = torch.tensor(-2.5), torch.tensor(0.7)
    expected = (gradient.double() * upstream.double() * factor.double()).to(dtype)
    torch.ops.nec_ext.ngf_scale_(gradient, upstream, factor)
    assert_gradient_close(gradient, expected)
    after = torch.empty(0, dtype=torch.uint8).set_(gradient.untyped_storage())
    changed = int((before != after).sum())
    assert 0 < changed <= gradient.numel() * gradient.element_size() <= around
