# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss as a module, among torch's and MONAI's."""

import copy
import pickle
from typing import Any

import pytest
import torch
from helpers import REDUCTIONS, assert_result_close, assert_same_bits, evaluate
from inputs import SMALL, generator

import nec_ext

IMAGES = SMALL[1].images()
SHAPE = SMALL[1].shape
EPS = 0.1 + torch.rand(SHAPE[1], 1, 1, 1, generator=generator("eps"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eps": EPS, "target_eps": 0.3, "eps_mode": "quadrature"},
        {"target_eps": EPS, "operator": "forward", "weight": -3.0},
        {"eps": 0.3, "operator": "sobel", "reduction": "sum"},
        {"reduction": "none", "spacing": 2.0},
        {"spacing": [0.7, 1.3, 2.5]},
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


def test_copies_and_what_they_print() -> None:
    module = nec_ext.NGFLoss(eps=EPS, target_eps=0.7, spacing=(0.7, 1.3, 2.5), weight=2.0)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(*IMAGES), module(*IMAGES))
        assert repr(other) == (
            "NGFLoss(eps=<tensor of shape (2, 1, 1, 1)>, eps_mode='additive', operator='central', "
            "reduction='mean', target_eps=0.7, spacing=(0.7, 1.3, 2.5), weight=2.0)"
        )
