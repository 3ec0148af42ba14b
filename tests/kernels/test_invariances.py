# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the loss must not depend on, to the last bit, and the range that it lies in."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    DTYPES,
    FORMULAS,
    OPERATORS,
    Result,
    assert_same_bits,
    evaluate,
    random_upstream,
)
from inputs import SMALL, Case, generator
from torch import Tensor

import nec_ext

SINGLE_AND_DOUBLE = DTYPES[:2]
small = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


def fused(*images: Tensor, upstream: Any = 1.0, **options: Any) -> Result:
    return evaluate(nec_ext.ngf_loss, *images, upstream, **options)


@covering(case=SMALL, dtype=SINGLE_AND_DOUBLE, options=FORMULAS)
def test_sign_of_contrast(case: Case, dtype: torch.dtype, options: dict[str, str]) -> None:
    input, target = case.images(dtype)
    plain, inverted = (fused(sign * input, target, **options) for sign in (1, -1))
    assert_same_bits(inverted, plain._replace(grad_input=-plain.grad_input))


@covering(case=SMALL, dtype=SINGLE_AND_DOUBLE)
def test_offset(case: Case, dtype: torch.dtype) -> None:
    # In steps of 1/256, which the offset does not round.
    input, target = ((256 * image).round() / 256 for image in case.images(dtype))
    assert_same_bits(fused(input + 3, target - 0.5), fused(input, target))


@covering(case=SMALL, dtype=SINGLE_AND_DOUBLE, options=FORMULAS)
def test_range(case: Case, dtype: torch.dtype, options: dict[str, str]) -> None:
    images = case.images(dtype)
    for pair in (images, (images[0], images[0]), (images[0], -3 * images[0])):
        loss = nec_ext.ngf_loss(*pair, reduction="none", **options)
        assert 0.5 <= loss.min() < loss.max() <= 1


@small
def test_samples_and_channels_do_not_see_each_other(case: Case) -> None:
    images, upstream = case.images(), random_upstream(case.shape)
    options = {"reduction": "none", "operator": "sobel"}
    together = fused(*images, upstream=upstream, **options)
    for sample, channel in itertools.product(*map(range, case.shape[:2])):
        at = slice(sample, sample + 1), slice(channel, channel + 1)
        alone = fused(*(image[at] for image in images), upstream=upstream[at], **options)
        assert_same_bits(alone, Result(*(tensor[at] for tensor in together)))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e25])
def test_a_bad_image_leaves_the_others_alone(bad: float) -> None:
    """They lie beside it in a row."""
    input, target = Case("rows", (20, 1, 4, 5, 6)).images()
    expected = fused(input, target, reduction="none")
    others = torch.arange(20) != 7
    input[7] = bad
    found = fused(input, target, reduction="none")
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        torch.testing.assert_close(one[others], other[others], rtol=1e-5, atol=1e-6)


@covering(case=SMALL, operator=OPERATORS)
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
    result = fused(input, target)
    step = 1e-4 * result.grad_input / result.grad_input.norm()
    decrease = result.loss - nec_ext.ngf_loss(input - step, target)
    assert decrease.item() == pytest.approx(1e-4 * result.grad_input.norm().item(), rel=1e-2)
