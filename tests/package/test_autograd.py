# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The stored gradient under everything that autograd may ask of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    EPS_MODES,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    as_leaves,
    assert_gradient_close,
    assert_result_close,
    evaluate,
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


def leaf_and_target(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    input, target = case.images(dtype)
    return input.requires_grad_(), target


def tiny_problem(case: Case, wanted: str, reduction: str) -> tuple[Any, list[Tensor]]:
    """Return a loss with maps as a function of the images that are wanted, and these."""
    images = case.images(torch.float64)
    rng = generator("tiny")
    options = {
        "eps": 0.3 + torch.rand(case.shape, generator=rng, dtype=torch.float64),
        "target_eps": 0.5,
        "mask": torch.rand(case.shape[2:], generator=rng),
        "spacing": 1.3,
        "weight": -1.7,
        "reduction": reduction,
    }

    def loss(*leaves: Tensor, **more: Any) -> Tensor:
        given = {"input": (*leaves, images[1]), "target": (images[0], *leaves), "both": leaves}[
            wanted
        ]
        return nec_ext.ngf_loss(*given, **options, **more)

    chosen = {"input": images[:1], "target": images[1:], "both": images}[wanted]
    return loss, [image.clone().requires_grad_() for image in chosen]


@covering(wanted=WANTED, reduction=REDUCTIONS, operator=OPERATORS, case=TINY, eps_mode=EPS_MODES)
def test_gradcheck(wanted: str, reduction: str, operator: str, case: Case, eps_mode: str) -> None:
    loss, leaves = tiny_problem(case, wanted, reduction)
    assert gradcheck(
        lambda *given: loss(*given, operator=operator, eps_mode=eps_mode), leaves, atol=1e-8
    )


@covering(wanted=WANTED, reduction=REDUCTIONS, case=TINIEST, eps_mode=EPS_MODES)
def test_gradgradcheck(wanted: str, reduction: str, case: Case, eps_mode: str) -> None:
    loss, leaves = tiny_problem(case, wanted, reduction)
    assert gradgradcheck(
        lambda *given: loss(*given, operator="sobel", eps_mode=eps_mode), leaves, atol=1e-7
    )


@covering(dtype=DTYPES, case=SMALL, upstream=[1.0, -0.7])
def test_second_backward_gives_the_same_bits(
    dtype: torch.dtype, case: Case, upstream: float
) -> None:
    leaves = [image.requires_grad_() for image in case.images(dtype)]
    loss = nec_ext.ngf_loss(*leaves, weight=0.7)
    once, again = (
        torch.autograd.grad(loss, leaves, torch.tensor(upstream), retain_graph=True)
        for _ in range(2)
    )
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))


@covering(
    case=[*SMALL, *by_name("strided_3d", "transposed_2d", "expanded_3d")],
    dtype=DTYPES,
    reduction=REDUCTIONS,
    wanted=WANTED,
    first=[1.0, -2.5],
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
    ones = torch.ones(loss.shape)
    for upstream in (first * ones, random_upstream(loss.shape), ones):
        found = torch.autograd.grad(loss, required, upstream, retain_graph=True)
        expected = expected_result(*images, upstream, wanted, **options)
        for gradient, wide in zip(found, expected.tensors[1:], strict=True):
            assert_gradient_close(gradient, wide)
            gradient.zero_()  # what was handed out belongs to the caller


def test_gradients_accumulate() -> None:
    input, target = leaf_and_target(SMALL[1])
    nec_ext.ngf_loss(input, target).backward(torch.tensor(2.0))
    nec_ext.ngf_loss(input, target, operator="sobel").backward(torch.tensor(-0.7))
    expected = expected_result(input, target, 2.0, "input").grad_input
    expected += expected_result(input, target, -0.7, "input", operator="sobel").grad_input
    assert_gradient_close(input.grad, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_loss_of_an_image_with_itself(reduction: str) -> None:
    image, _ = leaf_and_target(SMALL[1])
    loss = nec_ext.ngf_loss(image, image, reduction=reduction, target_eps=0.4)
    upstream = random_upstream(loss.shape)
    parts = expected_result(image, image, upstream, reduction=reduction, target_eps=0.4)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, image, upstream, retain_graph=True)
        assert_gradient_close(gradient, parts.grad_input + parts.grad_target)


def test_one_image_twice_and_a_sum_of_losses() -> None:
    images = [image.requires_grad_() for image in SMALL[1].images(torch.float64)]

    def compound(loss: Any) -> Tensor:
        shared = images[0].sin()
        total = 3 * loss(shared, images[1], weight=0.3) + loss(shared, 2 * shared) ** 2
        return total * loss(images[1], shared, eps_mode="quadrature", reduction="sum")

    gradients = torch.autograd.grad(compound(nec_ext.ngf_loss), images)
    for gradient, wanted in zip(
        gradients, torch.autograd.grad(compound(reference.ngf_loss), images), strict=True
    ):
        assert_gradient_close(gradient, wanted)


def test_changed_input_is_noticed() -> None:
    input, target = leaf_and_target(SMALL[0])
    inner = input * 1
    loss = nec_ext.ngf_loss(inner, target)
    inner.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_create_graph(reduction: str) -> None:
    images = [image.requires_grad_() for image in SMALL[1].images(torch.float64)]

    def penalty(loss: Any) -> tuple[Tensor, ...]:
        value = loss(*images, reduction=reduction, eps=0.4)
        upstream = random_upstream(value.shape).double().requires_grad_()
        first = torch.autograd.grad(value, images, upstream, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [*images, upstream])

    for actual, expected in zip(
        penalty(nec_ext.ngf_loss), penalty(reference.ngf_loss), strict=True
    ):
        assert actual.count_nonzero() > 0
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


def test_create_graph_and_then_a_plain_backward() -> None:
    input, target = leaf_and_target(SMALL[1], torch.float64)
    loss = nec_ext.ngf_loss(input, target)
    (first,) = torch.autograd.grad(loss, input, create_graph=True)
    (second,) = torch.autograd.grad(loss, input, torch.tensor(2.0), retain_graph=True)
    (third,) = torch.autograd.grad(loss, input, torch.tensor(0.5))
    assert_gradient_close(second, 2 * first)
    assert_gradient_close(third, first / 2)


def test_hooks() -> None:
    input, target = leaf_and_target(SMALL[1])
    seen: list[Tensor] = []
    input.register_hook(lambda gradient: seen.append(gradient.clone()) or -2 * gradient)
    with torch.autograd.graph.save_on_cpu():
        loss = nec_ext.ngf_loss(input, target)
    loss.backward()
    expected = expected_result(input, target, 1.0, "input").grad_input
    assert_gradient_close(seen[0], expected)
    assert_gradient_close(input.grad, -2 * expected)


def test_checkpoint() -> None:
    input, target = leaf_and_target(SMALL[1])
    loss = torch.utils.checkpoint.checkpoint(
        lambda image: nec_ext.ngf_loss(image.tanh(), target), input, use_reentrant=False
    )
    (gradient,) = torch.autograd.grad(loss, input, torch.tensor(-1.5))
    inner = input.detach().double().requires_grad_()
    wanted = torch.autograd.grad(-1.5 * reference.ngf_loss(inner.tanh(), target.double()), inner)[0]
    assert_gradient_close(gradient, wanted)


def test_expected_results_are_not_trivial() -> None:
    """The comparisons of this suite would all pass if gradients vanished."""
    for case in SMALL:
        result = evaluate(nec_ext.ngf_loss, *case.images(), 1.0, reduction="sum")
        assert result.grad_input.abs().median() > 1e-3
        assert result.grad_target.abs().median() > 1e-3
        assert 0.6 < result.loss / result.grad_input.numel() < 0.99
        assert_result_close(result, expected_result(*case.images(), 1.0, reduction="sum"))
