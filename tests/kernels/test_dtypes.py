# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Which gradients come, in which dtype: half types are rounded once and kept from underflow."""

from __future__ import annotations

import torch
from covering import covering
from helpers import (
    DTYPES,
    WANTED,
    assert_loss_close,
    assert_result_close,
    check_fused,
    evaluate,
    expected_result,
)
from inputs import SMALL, Case, by_name

import nec_ext


@covering(case=by_name("tiles_x_2d", "chunks_3d", "brain_3d"), dtype=DTYPES[2:])
def test_loss_scale_keeps_a_half_gradient_from_underflow(case: Case, dtype: torch.dtype) -> None:
    """As torch.amp's GradScaler does. It could not, if 1 / voxels were multiplied in before."""
    images = case.images(dtype)
    fused = evaluate(nec_ext.ngf_loss, *images, 2.0**16)
    assert_result_close(fused, expected_result(*images, 2.0**16))


@covering(dtype=DTYPES, other=DTYPES, wanted=WANTED, reduction=["mean", "none"], case=SMALL)
def test_mixed_dtypes(
    dtype: torch.dtype, other: torch.dtype, wanted: str, reduction: str, case: Case
) -> None:
    images = case.images(dtype, other)
    check_fused(*images, wanted=wanted, reduction=reduction, target_eps=0.4)


def test_nothing_is_computed_for_images_without_gradient() -> None:
    input, target = SMALL[0].images()
    assert not nec_ext.ngf_loss(input, target).requires_grad
    input.requires_grad_()
    with torch.no_grad():
        assert not nec_ext.ngf_loss(input, target).requires_grad
    with torch.inference_mode():
        loss = nec_ext.ngf_loss(input * 2, target)
    assert not loss.requires_grad
    assert_loss_close(loss, expected_result(2 * input, target).loss)
