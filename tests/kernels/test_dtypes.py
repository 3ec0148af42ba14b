# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Which gradients come, in which dtype: half types are rounded once and kept from underflow."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import (
    DTYPES,
    EPS_MODES,
    OPERATORS,
    WANTED,
    assert_gradient_close,
    assert_loss_close,
    check_fused,
    evaluate,
    expected_result,
)
from inputs import CASES, LARGE, SMALL, Case, by_name, generator

import nec_ext

small = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
halves = pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)
def test_large_input_in_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    # The mean's gradient would be below a half type's normal range, whoever computes it.
    check_fused(*case.images(dtype), reduction="sum", operator="sobel")


@pytest.mark.parametrize("reduction", ["sum", "none"])
@halves
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_half_gradient_is_the_float32_gradient_rounded(
    case: Case, dtype: torch.dtype, reduction: str
) -> None:
    images = case.images(dtype)
    # float() alone would make strided images contiguous.
    layouts = case.layout, case.target_layout or case.layout
    floats = [layout(image.float()) for layout, image in zip(layouts, images, strict=True)]
    half = evaluate(nec_ext.ngf_loss, *images, 1.0, reduction=reduction)
    full = evaluate(nec_ext.ngf_loss, *floats, 1.0, reduction=reduction)
    assert torch.equal(half.loss, full.loss)
    assert torch.equal(half.grad_input, full.grad_input.to(dtype))
    assert torch.equal(half.grad_target, full.grad_target.to(dtype))


@halves
@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)
def test_loss_scale_keeps_a_half_gradient_from_underflow(case: Case, dtype: torch.dtype) -> None:
    """As torch.amp's GradScaler does. It could not, if 1 / voxels were multiplied in before."""
    images = case.images(dtype)
    fused = evaluate(nec_ext.ngf_loss, *images, 2.0**16)
    expected = expected_result(*images, 2.0**16)
    assert_gradient_close(fused.grad_input, expected.grad_input)
    assert_gradient_close(fused.grad_target, expected.grad_target)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize(
    "dtypes", [*itertools.product(DTYPES, DTYPES)], ids=lambda pair: f"{pair[0]}-{pair[1]}"
)
@small
def test_mixed_dtypes(
    case: Case, dtypes: tuple[torch.dtype, torch.dtype], wanted: str, reduction: str
) -> None:
    images = case.images(*dtypes)
    result = check_fused(*images, wanted=wanted, reduction=reduction, target_eps=0.4)
    for name, gradient in zip(("input", "target"), result[1:], strict=True):
        assert (gradient is not None) == (wanted in (name, "both"))


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("eps_mode", EPS_MODES)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("wanted", WANTED)
@small
def test_one_gradient_is_that_of_both(
    case: Case, wanted: str, operator: str, eps_mode: str, dtype: torch.dtype
) -> None:
    options = {
        "target_eps": 0.05 + torch.rand(case.shape, generator=generator("eps")),
        "operator": operator,
        "eps_mode": eps_mode,
    }
    check_fused(*case.images(dtype), wanted=wanted, **options)


@pytest.mark.parametrize(
    "case", by_name("strided_3d", "transposed_2d", "channels_last_3d"), ids=lambda c: c.name
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradient_has_the_strides_of_a_dense_image(case: Case, reduction: str) -> None:
    images = case.images()
    for gradient, image in zip(
        evaluate(nec_ext.ngf_loss, *images, reduction=reduction)[1:], images, strict=True
    ):
        assert gradient.stride() == torch.empty_like(image).stride()


def test_nothing_is_computed_for_images_without_gradient() -> None:
    assert not nec_ext.ngf_loss(*SMALL[0].images()).requires_grad
    input, target = SMALL[0].images()
    input.requires_grad_()
    with torch.no_grad():
        assert not nec_ext.ngf_loss(input, target).requires_grad
    with torch.inference_mode():
        loss = nec_ext.ngf_loss(input * 2, target)
    assert not loss.requires_grad
    assert_loss_close(loss, expected_result(2 * input, target).loss)
