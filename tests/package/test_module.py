# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss as a module, among torch's and MONAI's, and with its gradient, without autograd."""

import copy
import pickle
from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    DTYPES,
    REDUCTIONS,
    assert_result_close,
    assert_same_bits,
    evaluate,
)
from inputs import SMALL, Case, generator
from torch import Tensor

import nec_ext
from nec_ext import _devices, _ops

IMAGES = SMALL[1].images()
SHAPE = SMALL[1].shape
EPS = 0.1 + torch.rand(SHAPE[1], 1, 1, 1, generator=generator("eps"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": EPS, "target_eps": 0.3, "eps_mode": "quadrature", "reduction": "sum"},
        {"target_eps": EPS, "operator": "sobel", "weight": -3.0, "spacing": 2.0},
        {"form": "signed", "reduction": "none", "spacing": [0.7, 1.3, 2.5]},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_options_reach_the_function(options: dict[str, Any]) -> None:
    module = nec_ext.NGFLoss(**options)
    for mask in (None, torch.rand(SHAPE, generator=generator("mask"))):
        expected = evaluate(nec_ext.ngf_loss, *IMAGES, mask=mask, **options)
        assert_same_bits(evaluate(lambda i, t, m=mask: module(i, t, m), *IMAGES), expected)


def test_a_negative_mask_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^mask must not be negative"):
        nec_ext.NGFLoss()(*IMAGES, -torch.ones(SHAPE))


def test_a_compiled_module_takes_an_image_twice() -> None:
    module, image = nec_ext.NGFLoss(), IMAGES[0].clone().requires_grad_()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image, image), module(image, image))


def test_reduction_of_monai() -> None:
    reductions = pytest.importorskip("monai.utils").LossReduction
    for name in REDUCTIONS:
        reduction = reductions[name.upper()]
        expected = nec_ext.ngf_loss(*IMAGES, reduction=name)
        assert torch.equal(nec_ext.NGFLoss(reduction=reduction)(*IMAGES), expected)
        assert torch.equal(nec_ext.ngf_loss(*IMAGES, reduction=reduction), expected)


def test_metatensor() -> None:
    data = pytest.importorskip("monai.data")
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    input, target = (data.MetaTensor(image.clone(), affine=affine) for image in IMAGES)
    mask = data.MetaTensor(torch.rand(SHAPE, generator=generator("mask")), affine=affine)
    eps = data.MetaTensor(EPS, affine=affine)
    expected = evaluate(nec_ext.ngf_loss, *IMAGES, wanted="input", mask=mask.as_tensor(), eps=EPS)
    for function in (
        nec_ext.ngf_loss,
        lambda *images, mask, eps: nec_ext.NGFLoss(eps=eps)(*images, mask),
        nec_ext.reference.ngf_loss,
    ):
        result = evaluate(function, input, target, wanted="input", mask=mask, eps=eps)
        assert type(result.loss) is torch.Tensor
        assert_result_close(result, expected)
    assert type(nec_ext.ngf_field(target)) is torch.Tensor
    assert type(nec_ext.estimate_eps(target)) is torch.Tensor


def test_eps_tensor_is_a_buffer() -> None:
    module = nec_ext.NGFLoss(eps=EPS, target_eps=2 * EPS)
    assert isinstance(module, torch.nn.modules.loss._Loss)
    assert dict(module.named_buffers()).keys() == {"eps", "target_eps"}
    assert module.state_dict().keys() == {"eps", "target_eps"}  # as the weight of torch's losses
    module.to("meta")
    assert module.eps.device.type == module.target_eps.device.type == "meta"
    assert nec_ext.NGFLoss(eps=EPS).double().eps.dtype == torch.float64


def test_copies() -> None:
    module = nec_ext.NGFLoss(eps=EPS, target_eps=0.7, spacing=(0.7, 1.3, 2.5), weight=2.0)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(*IMAGES), module(*IMAGES))


def options_of(case: Case) -> dict[str, Any]:
    """Return maps, of which eps requires a gradient that nobody asks for."""
    rng = generator("without autograd")
    mask = torch.rand(case.shape, generator=rng)
    return {"eps": (0.1 + torch.rand(case.shape, generator=rng)).requires_grad_(), "mask": mask}


@covering(
    case=SMALL,
    dtype=DTYPES,
    target_grad=[False, True],
    maps=[False, True],
    options={**ALL_FORMULAS, "reduction": ["mean", "sum"], "weight": [1.0, -2.5]},
)
def test_same_bits_as_autograd(
    case: Case, dtype: torch.dtype, target_grad: bool, maps: bool, options: dict[str, Any]
) -> None:
    input, target = case.images(dtype)
    options = {**options, **(options_of(case) if maps else {"eps": 0.2})}
    wanted = "both" if target_grad else "input"
    expected = evaluate(nec_ext.ngf_loss, input, target, 1.0, wanted, **options)
    for image in (input, target):
        image.requires_grad_()
    actual = nec_ext.ngf_loss_and_gradient(input, target, target_grad=target_grad, **options)
    assert not any(tensor.requires_grad for tensor in actual)
    assert all(torch.equal(*pair) for pair in zip(actual, expected.tensors, strict=True))


def test_device_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    input, target = SMALL[1].images(torch.float64)
    options = options_of(SMALL[1])
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
    torch.testing.assert_close(torch.compile(step)(input, target), step(input, target))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_transforms_of_loss_and_gradient(dtype: torch.dtype) -> None:
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
