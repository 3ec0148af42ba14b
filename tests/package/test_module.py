# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss as a module, among torch's and MONAI's."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from helpers import (
    REDUCTIONS,
    assert_same_bits,
    evaluate,
)
from inputs import SMALL, generator

import nec_ext

IMAGES = SMALL[1].images()
SHAPE = SMALL[1].shape
EPS = 0.1 + torch.rand(SHAPE[1], 1, 1, 1, generator=generator("eps"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": 0.3},
        {"eps": EPS, "target_eps": 0.3},
        {"target_eps": EPS},
        {"eps_mode": "quadrature"},
        {"operator": "forward"},
        {"operator": "sobel"},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"spacing": 2.0},
        {"spacing": (0.7, 1.3, 2.5)},
        {"spacing": [0.7, 1.3, 2.5]},
        {"weight": -3.0},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_options_reach_the_function(options: dict[str, Any]) -> None:
    module = nec_ext.NGFLoss(**options)
    for mask in (None, torch.rand(SHAPE, generator=generator("mask"))):
        expected = evaluate(nec_ext.ngf_loss, *IMAGES, mask=mask, **options)
        assert_same_bits(evaluate(lambda i, t, m=mask: module(i, t, m), *IMAGES), expected)
        by_name = evaluate(lambda i, t, m=mask: module(input=i, target=t, mask=m), *IMAGES)
        assert_same_bits(by_name, expected)


def test_it_is_a_loss_of_torch() -> None:
    module = nec_ext.NGFLoss()
    assert isinstance(module, torch.nn.modules.loss._Loss)
    assert module.reduction == "mean"
    assert list(module.parameters()) == []


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
    input.requires_grad_()
    for loss in (
        nec_ext.ngf_loss(input, target, mask=mask, eps=eps),
        nec_ext.NGFLoss(eps=eps)(input, target, mask),
        nec_ext.reference.ngf_loss(input, target, mask=mask, eps=eps),
        nec_ext.ngf_loss(input, target, mask=mask, eps=eps, reduction="none").mean(),
    ):
        assert type(loss) is torch.Tensor
        input.grad = None
        loss.backward()
        assert input.grad is not None
    plain = [tensor.as_tensor() for tensor in (input.detach(), target, mask, eps)]
    expected = nec_ext.ngf_loss(*plain[:2], mask=plain[2], eps=plain[3])
    assert torch.equal(nec_ext.ngf_loss(input, target, mask=mask, eps=eps), expected)
    assert type(nec_ext.ngf_field(target)) is torch.Tensor
    assert type(nec_ext.estimate_eps(target)) is torch.Tensor


def test_a_parameter_is_a_tensor() -> None:
    parameter = torch.nn.Parameter(IMAGES[0].clone())
    loss = nec_ext.ngf_loss(parameter, IMAGES[1])
    assert type(loss) is torch.Tensor
    loss.backward(torch.tensor(-1.5))
    expected = evaluate(nec_ext.ngf_loss, *IMAGES, -1.5, "input")
    assert_same_bits(expected._replace(grad_input=parameter.grad), expected)


def test_eps_tensor_is_a_buffer() -> None:
    module = nec_ext.NGFLoss(eps=EPS, target_eps=2 * EPS)
    assert dict(module.named_buffers()).keys() == {"eps", "target_eps"}
    assert module.state_dict() == {}  # options are not learned, and checkpoints stay loadable
    assert nec_ext.NGFLoss().state_dict() == {}
    module.load_state_dict({})
    module.to("meta")
    assert module.eps.device.type == module.target_eps.device.type == "meta"
    assert nec_ext.NGFLoss(eps=EPS).double().eps.dtype == torch.float64


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies(how: str) -> None:
    options = {"eps": EPS, "spacing": (0.7, 1.3, 2.5), "operator": "sobel", "weight": 2.0}
    module = nec_ext.NGFLoss(**options)
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert torch.equal(other(*IMAGES), module(*IMAGES))
    assert repr(other) == repr(module)


def test_repr() -> None:
    module = nec_ext.NGFLoss(eps=0.3, eps_mode="quadrature", operator="sobel")
    assert repr(module) == (
        "NGFLoss(eps=0.3, eps_mode='quadrature', operator='sobel', reduction='mean')"
    )
    for name, value in {"target_eps": 0.7, "spacing": (0.7, 1.3), "weight": 2.5}.items():
        assert f"{name}={value!r}" in repr(nec_ext.NGFLoss(**{name: value}))
    assert "eps=<tensor of shape (2, 1, 1, 1)>" in repr(nec_ext.NGFLoss(eps=EPS))
