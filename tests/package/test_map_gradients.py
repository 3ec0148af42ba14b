# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Gradients to eps, target_eps and mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import covering
from helpers import ALL_FORMULAS, REDUCTIONS, assert_gradient_close, random_upstream
from inputs import SMALL, Case, generator
from torch import Tensor

import nec_ext

NAMES = ("eps", "target_eps", "mask")


def maps(case: Case, kind: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Return maps that require a gradient, of shapes that images broadcast in several ways."""
    space = case.shape[2:]
    per_channel = (case.shape[1], *(1,) * len(space))
    shapes = {
        "voxels": (case.shape, space, case.shape),
        "numbers": ((), (1,), space),  # the mean by a constant mask has no gradient
        "mixed": (per_channel, (case.shape[0], *(1,) * (len(space) + 1)), space[-1:]),
    }[kind]
    rng = generator(f"maps {kind}")
    values = (0.1 + torch.rand(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return {
        name: value.to(dtype).requires_grad_() for name, value in zip(NAMES, values, strict=True)
    }


@covering(
    case=SMALL,
    formula=ALL_FORMULAS,
    reduction=[*REDUCTIONS, "sample"],
    # Sums over voxels cancel: their digits are those of float64.
    kind_and_dtype=[
        ("voxels", torch.float32),
        ("voxels", torch.float16),
        ("numbers", torch.float64),
        ("mixed", torch.float64),
    ],
    images=[False, True],
)
def test_as_the_reference(
    case: Case,
    formula: dict[str, str],
    reduction: str,
    kind_and_dtype: tuple[str, torch.dtype],
    images: bool,
) -> None:
    kind, dtype = kind_and_dtype
    options: dict[str, Any] = dict(reduction=reduction, weight=-0.7, spacing=1.3, **formula)
    gradients = []
    for function, wide in ((nec_ext.ngf_loss, False), (nec_ext.reference.ngf_loss, True)):
        pair = [i.double() if wide else i for i in case.images(dtype)]
        given = maps(case, kind, torch.float64 if wide or dtype == torch.float64 else torch.float32)
        leaves = [*(i.requires_grad_() for i in pair if images), *given.values()]
        loss = function(*pair, **given, **options)
        gradients.append(torch.autograd.grad(loss, leaves, random_upstream(loss.shape, loss.dtype)))
    for actual, expected in zip(*gradients, strict=True):
        assert actual.shape == expected.shape
        assert_gradient_close(actual, expected)


@covering(formula=ALL_FORMULAS, reduction=["mean", "none"])
def test_gradcheck(formula: dict[str, str], reduction: str) -> None:
    case = Case("gradcheck", (2, 1, 3, 4))
    given = maps(case, "mixed").values()
    images = [image.requires_grad_() for image in case.images(torch.float64)]

    def loss(input: Tensor, target: Tensor, *values: Tensor) -> Tensor:
        options: Any = dict(zip(NAMES, values, strict=True))
        return nec_ext.ngf_loss(input, target, reduction=reduction, **formula, **options)

    assert torch.autograd.gradcheck(loss, (*images, *given))
    assert torch.autograd.gradgradcheck(loss, (*images, *given))


def test_a_field_and_its_eps() -> None:
    image = SMALL[0].images(torch.float64)[0]
    eps = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for mode in ("additive", "quadrature", "augmented"):
        assert torch.autograd.gradcheck(lambda e, m=mode: nec_ext.ngf_field(image, e, m), (eps,))


def test_a_parameter_of_the_module() -> None:
    """As in the class of the NEC authors, which learns its eps."""
    module = nec_ext.NGFLoss(eps=torch.nn.Parameter(torch.tensor(0.2)))
    assert [name for name, _ in module.named_parameters()] == ["eps"]
    images = SMALL[1].images()
    module(*images).backward()
    compiled = torch.compile(nec_ext.ngf_loss, backend="aot_eager", fullgraph=True)
    eps = torch.tensor(0.2, requires_grad=True)
    compiled(*images, eps=eps).backward()
    torch.testing.assert_close(module.eps.grad, eps.grad)
    module.eps = 0.3
    assert not [*module.parameters()]


def test_an_empty_mask_has_a_gradient_of_0() -> None:
    mask = torch.zeros(SMALL[0].shape, requires_grad=True)
    nec_ext.ngf_loss(*SMALL[0].images(), mask=mask).backward()
    assert mask.grad is not None and mask.grad.count_nonzero() == 0


def test_parts_have_none() -> None:
    eps = torch.tensor(0.2, requires_grad=True)
    with pytest.raises(ValueError, match="eps must not require a gradient, a volume in parts has"):
        nec_ext.tiled.ngf_loss(*SMALL[0].images(), eps=eps)
