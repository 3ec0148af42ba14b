# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The stored gradient under everything that autograd may ask of it."""

from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    EPS_MODES,
    FORMULAS,
    REDUCTIONS,
    WANTED,
    as_leaves,
    assert_gradient_close,
    expected_result,
    random_upstream,
)
from inputs import SMALL, Case, by_name, generator
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import nec_ext
from nec_ext import reference

DTYPES = (torch.float32, torch.float64, torch.float16)
TINY = [Case("tiny_2d", (1, 2, 3, 4)), Case("tiny_3d", (1, 1, 3, 2, 4))]
TINIEST = [Case("tiniest_2d", (2, 1, 2, 3)), Case("tiniest_3d", (1, 1, 2, 2, 3))]


def tiny_problem(case: Case, wanted: str, **options: Any) -> tuple[Any, list[Tensor]]:
    rng = generator("tiny")
    options["eps"] = 0.3 + torch.rand(case.shape, generator=rng, dtype=torch.float64)
    options["mask"] = torch.rand(case.shape[2:], generator=rng)
    options |= {"target_eps": 0.5, "spacing": 1.3, "weight": -1.7}
    leaves = as_leaves(*case.images(torch.float64), wanted)
    return lambda *images: nec_ext.ngf_loss(*images, **options), leaves


@covering(wanted=WANTED, case=TINY, options={**FORMULAS, "reduction": REDUCTIONS})
def test_gradcheck(wanted: str, case: Case, options: dict[str, str]) -> None:
    assert gradcheck(*tiny_problem(case, wanted, **options), atol=1e-8, check_forward_ad=True)


@covering(wanted=WANTED, case=TINIEST, options={"reduction": REDUCTIONS, "eps_mode": EPS_MODES})
def test_gradgradcheck(wanted: str, case: Case, options: dict[str, str]) -> None:
    assert gradgradcheck(*tiny_problem(case, wanted, operator="sobel", **options), atol=1e-7)


@covering(
    case=[*SMALL, *by_name("strided_3d", "expanded_3d")],
    dtype=DTYPES,
    reduction=REDUCTIONS,
    wanted=WANTED,
    first=[1.0, 2.5],
)
def test_retained_graph_gives_the_same_gradient_again(
    case: Case, dtype: torch.dtype, reduction: str, wanted: str, first: float
) -> None:
    images = case.images(dtype)
    leaves = as_leaves(*images, wanted)
    mask = torch.rand(case.shape, generator=generator("mask"))
    options = {"reduction": reduction, "mask": mask, "weight": 0.7}
    loss = nec_ext.ngf_loss(*leaves, **options)
    required = [leaf for leaf in leaves if leaf.requires_grad]
    same, seen = torch.full(loss.shape, first), []
    for upstream in (same, random_upstream(loss.shape), same):
        found = torch.autograd.grad(loss, required, upstream, retain_graph=True)
        seen.append([gradient.clone() for gradient in found])
        expected = expected_result(*images, upstream, wanted, **options)
        for gradient, wide in zip(found, expected.tensors[1:], strict=True):
            assert_gradient_close(gradient, wide)
            gradient.zero_()  # what was handed out belongs to the caller
    assert all(torch.equal(*pair) for pair in zip(seen[0], seen[2], strict=True))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_of_an_image_with_itself(reduction: str) -> None:
    image = SMALL[1].images()[0].requires_grad_()
    loss = nec_ext.ngf_loss(image, image, reduction=reduction, target_eps=0.4)
    upstream = random_upstream(loss.shape)
    parts = expected_result(image, image, upstream, reduction=reduction, target_eps=0.4)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, image, upstream, retain_graph=True)
        assert_gradient_close(gradient, parts.grad_input + parts.grad_target)


def test_changed_input_is_noticed() -> None:
    input, target = SMALL[0].images()
    inner = input.requires_grad_() * 1
    loss = nec_ext.ngf_loss(inner, target)
    inner.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_create_graph_and_then_a_plain_backward() -> None:
    input, target = SMALL[1].images(torch.float64)
    mask = torch.rand(input.shape, generator=generator("mask"))
    loss = nec_ext.ngf_loss(input.requires_grad_(), target, mask=mask)
    (first,) = torch.autograd.grad(loss, input, create_graph=True)
    loss.backward(torch.tensor(-2.0))
    assert_gradient_close(input.grad, -2 * first)


def test_checkpoint_and_what_is_saved_on_the_cpu() -> None:
    input, target = SMALL[1].images()
    input.requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        loss = nec_ext.ngf_loss(input, target, operator="sobel")
    loss = loss + torch.utils.checkpoint.checkpoint(
        lambda image: nec_ext.ngf_loss(image.tanh(), target), input, use_reentrant=False
    )
    loss.backward(torch.tensor(-1.5))
    inner, other = input.detach().double().requires_grad_(), target.double()
    plain = reference.ngf_loss(inner, other, operator="sobel")
    (-1.5 * (plain + reference.ngf_loss(inner.tanh(), other))).backward()
    assert_gradient_close(input.grad, inner.grad)


# --- Gradients by eps, target_eps and mask -------------------------------------------------------

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
    options={**ALL_FORMULAS, "reduction": [*REDUCTIONS, "sample"]},
    # Sums over voxels cancel: their digits are those of float64.
    kind=["voxels, float32", "voxels, float16", "numbers, float64", "mixed, float64"],
    images=[False, True],
)
def test_as_the_reference(case: Case, options: dict[str, Any], kind: str, images: bool) -> None:
    kind, name = kind.split(", ")
    dtype = getattr(torch, name)
    gradients = []
    for function, wide in ((nec_ext.ngf_loss, False), (nec_ext.reference.ngf_loss, True)):
        pair = [i.double() if wide else i for i in case.images(dtype)]
        given = maps(case, kind, torch.float64 if wide or dtype == torch.float64 else torch.float32)
        leaves = [*(i.requires_grad_() for i in pair if images), *given.values()]
        loss = function(*pair, **given, weight=-0.7, spacing=1.3, **options)
        gradients.append(torch.autograd.grad(loss, leaves, random_upstream(loss.shape, loss.dtype)))
    for actual, expected in zip(*gradients, strict=True):
        assert_gradient_close(actual, expected)


@covering(formula=ALL_FORMULAS, reduction=["mean", "none"])
def test_gradcheck_of_maps(formula: dict[str, str], reduction: str) -> None:
    case = Case("gradcheck", (2, 1, 3, 4))
    given = maps(case, "mixed").values()
    images = [image.requires_grad_() for image in case.images(torch.float64)]

    def loss(input: Tensor, target: Tensor, *values: Tensor) -> Tensor:
        options: Any = dict(zip(NAMES, values, strict=True))
        return nec_ext.ngf_loss(input, target, reduction=reduction, **formula, **options)

    assert torch.autograd.gradcheck(loss, (*images, *given))
    assert torch.autograd.gradgradcheck(loss, (*images, *given))


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


@covering(functions=[nec_ext, reference], create_graph=[False, True], reduction=["mean", "sample"])
def test_an_empty_mask_has_a_gradient_of_0(
    functions: Any, create_graph: bool, reduction: str
) -> None:
    """Only that of its own sample is."""
    mask = torch.ones(SMALL[0].shape)
    mask[0 if reduction == "sample" else slice(None)] = 0
    mask.requires_grad_()
    loss = functions.ngf_loss(*SMALL[0].images(), mask=mask, reduction=reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), mask, create_graph=create_graph)
    assert gradient[mask == 0].count_nonzero() == 0
    assert gradient.count_nonzero() == mask.count_nonzero()
