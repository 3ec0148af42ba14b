# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the loss must not depend on, and what follows from its formula for any images."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from helpers import (
    EPS_MODES,
    OPERATORS,
    Result,
    assert_gradient_close,
    assert_loss_close,
    assert_result_close,
    assert_same_bits,
    evaluate,
    random_upstream,
)
from inputs import SMALL, Case, generator
from torch import Tensor

import nec_ext

small = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
modes = pytest.mark.parametrize("eps_mode", EPS_MODES)
operators = pytest.mark.parametrize("operator", OPERATORS)


def fused(*images: Tensor, upstream: Any = None, **options: Any) -> Result:
    return evaluate(nec_ext.ngf_loss, *images, upstream, **options)


@operators
@modes
@dtypes
@small
def test_sign_of_contrast(case: Case, dtype: torch.dtype, eps_mode: str, operator: str) -> None:
    input, target = case.images(dtype)
    plain = fused(input, target, eps_mode=eps_mode, operator=operator)
    inverted = fused(-input, target, eps_mode=eps_mode, operator=operator)
    assert_same_bits(inverted, plain._replace(grad_input=-plain.grad_input))


@operators
@modes
@dtypes
@pytest.mark.parametrize("scale", [0.25, -8.0])  # powers of two, which round nothing
@small
def test_scale_of_contrast(
    case: Case, scale: float, dtype: torch.dtype, eps_mode: str, operator: str
) -> None:
    input, target = case.images(dtype)
    options = {"target_eps": 0.3, "eps_mode": eps_mode, "operator": operator}
    plain = fused(input, target, eps=0.15, **options)
    scaled = fused(scale * input, target, eps=abs(scale) * 0.15, **options)
    assert_result_close(scaled, plain._replace(grad_input=plain.grad_input / scale))


@dtypes
@small
def test_offset(case: Case, dtype: torch.dtype) -> None:
    # In steps of 1/256, which the offset does not round.
    input, target = ((256 * image).round() / 256 for image in case.images(dtype))
    assert_same_bits(fused(input + 3, target - 0.5), fused(input, target))


@modes
@dtypes
@pytest.mark.parametrize("step", [0.5, 4.0])
@small
def test_spacing_is_the_unit_of_eps(
    case: Case, step: float, dtype: torch.dtype, eps_mode: str
) -> None:
    images = case.images(dtype)
    coarse = fused(*images, spacing=step, eps=0.2, eps_mode=eps_mode)
    assert_result_close(coarse, fused(*images, eps=0.2 * step, eps_mode=eps_mode))


@operators
@modes
@dtypes
@small
def test_swap(case: Case, dtype: torch.dtype, eps_mode: str, operator: str) -> None:
    input, target = case.images(dtype)
    target_eps = 0.1 + torch.rand(case.shape, generator=generator("eps"))
    options = {"eps_mode": eps_mode, "operator": operator}
    plain = fused(input, target, eps=0.2, target_eps=target_eps, **options)
    swapped = fused(target, input, eps=target_eps, target_eps=0.2, **options)
    assert_result_close(swapped, Result(plain.loss, plain.grad_target, plain.grad_input))


@pytest.mark.parametrize("operator", ["central", "sobel"])  # a forward difference has a direction
@dtypes
@small
def test_flips(case: Case, dtype: torch.dtype, operator: str) -> None:
    images = case.images(dtype)
    upstream = random_upstream(case.shape)
    plain = fused(*images, upstream=upstream, operator=operator, reduction="none")
    for count in range(1, len(case.shape) - 1):
        for axes in itertools.combinations(range(2, len(case.shape)), count):
            flipped = fused(
                *(image.flip(axes) for image in images),
                upstream=upstream.flip(axes),
                operator=operator,
                reduction="none",
            )
            assert_result_close(flipped, Result(*(tensor.flip(axes) for tensor in plain)))


@operators
@dtypes
@pytest.mark.parametrize("as_view", [False, True])
@small
def test_axis_permutations(case: Case, as_view: bool, dtype: torch.dtype, operator: str) -> None:
    images = case.images(dtype)
    ndim = len(case.shape) - 2
    spacing = [0.7, 1.3, 2.5][:ndim]
    mask = torch.rand(case.shape, generator=generator("mask"))
    plain = fused(*images, upstream=-1.5, spacing=spacing, mask=mask, operator=operator)
    for order in itertools.permutations(range(ndim)):
        axes = (0, 1, *(axis + 2 for axis in order))
        moved = [tensor.permute(axes) for tensor in (*images, mask)]
        if not as_view:
            moved = [tensor.contiguous() for tensor in moved]
        actual = fused(
            *moved[:2],
            upstream=-1.5,
            spacing=[spacing[k] for k in order],
            mask=moved[2],
            operator=operator,
        )
        expected = plain.loss, plain.grad_input.permute(axes), plain.grad_target.permute(axes)
        assert_result_close(actual, Result(*expected))


@operators
@modes
@dtypes
@small
def test_range(case: Case, dtype: torch.dtype, eps_mode: str, operator: str) -> None:
    images = case.images(dtype)
    for pair in (images, (images[0], images[0]), (images[0], -3 * images[0])):
        loss = nec_ext.ngf_loss(*pair, eps_mode=eps_mode, operator=operator, reduction="none")
        assert loss.min() >= 0.5
        assert loss.max() <= 1
        assert loss.min() < loss.max()


@modes
@small
def test_loss_of_an_image_with_itself(case: Case, eps_mode: str) -> None:
    image, _ = case.images(torch.float64)
    field = nec_ext.ngf_field(image, eps_mode=eps_mode)
    expected = 1 - field.square().sum(2).square() / 2
    assert_loss_close(nec_ext.ngf_loss(image, image, eps_mode=eps_mode, reduction="none"), expected)
    assert nec_ext.ngf_loss(image, image, eps=1e-9, eps_mode=eps_mode).item() == pytest.approx(
        0.5, abs=1e-7
    )


@small
def test_samples_and_channels_do_not_see_each_other(case: Case) -> None:
    input, target = case.images()
    upstream = random_upstream(case.shape)
    together = fused(input, target, upstream=upstream, reduction="none", operator="sobel")
    for sample, channel in itertools.product(*map(range, case.shape[:2])):
        at = slice(sample, sample + 1), slice(channel, channel + 1)
        alone = fused(
            input[at], target[at], upstream=upstream[at], reduction="none", operator="sobel"
        )
        assert_same_bits(alone, Result(*(tensor[at] for tensor in together)))


@small
def test_repeated_batch_has_the_same_mean(case: Case) -> None:
    images = case.images(torch.float64)
    once = fused(*images, upstream=1.0)
    twice = fused(*(torch.cat([image, image]) for image in images), upstream=2.0)
    assert_loss_close(twice.loss, once.loss)
    for half in range(2):
        assert_gradient_close(twice.grad_input.chunk(2)[half], once.grad_input)


@operators
@small
def test_masked_voxels_two_away_do_not_matter(case: Case, operator: str) -> None:
    input, target = case.images()
    rows = torch.arange(case.shape[-2])[:, None]
    mask, far, beside = (rows == 2), (rows - 2).abs() > 1, (rows - 2).abs() == 1
    changed = input + far * torch.rand(case.shape, generator=generator("changed"))
    actual = fused(changed, target, upstream=1.0, mask=mask, operator=operator)
    assert_same_bits(actual, fused(input, target, upstream=1.0, mask=mask, operator=operator))
    assert (far * actual.grad_input).count_nonzero() == 0
    assert (beside * actual.grad_input).count_nonzero() > 0


def test_direction_of_descent() -> None:
    """A step against the gradient lowers the loss: the sign is the one an optimizer expects."""
    input, target = SMALL[1].images(torch.float64)
    for wanted in (0, 1):
        result = fused(input, target, upstream=1.0)
        gradient = result[1 + wanted]
        images = [input, target]
        images[wanted] = images[wanted] - 1e-4 * gradient / gradient.norm()
        decrease = result.loss - nec_ext.ngf_loss(*images)
        assert decrease.item() == pytest.approx(1e-4 * gradient.norm().item(), rel=1e-2)
