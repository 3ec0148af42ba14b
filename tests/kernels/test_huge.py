# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""More than 2^31 elements: in the index of an element, in the count of voxels, in the gradient."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers import (
    assert_gradient_close,
    assert_loss_close,
    check_fused,
    evaluate,
    expected_result,
    makes_tensors_on_gpu,
)
from inputs import generator
from torch import Tensor

import nec_ext

BEYOND_INT32 = 2**31 + 1024
SHAPE = (1, 1, 2**16 + 2, 2**15 + 2)  # a little more than 2^31 voxels
FREE_BYTES = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory(size: int, file: Path) -> Tensor:
    """So many halves; on the CPU in a file with a hole that nobody reads."""
    if makes_tensors_on_gpu():
        return torch.empty(size, dtype=torch.float16)
    return torch.from_file(str(file), shared=True, size=size, dtype=torch.float16)


@pytest.mark.parametrize("axis", range(5))
def test_strides_beyond_int32(tmp_path: Path, axis: int) -> None:
    shape, strides = [1, 1, 3, 5, 6], [0, 0, 30, 6, 1]
    shape[axis], strides[axis] = 2, BEYOND_INT32
    size = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    images = []
    for name in ("input", "target"):
        image = memory(size, tmp_path / name).as_strided(shape, strides)
        images.append(image.copy_(torch.rand(shape, generator=generator(name))))
    mask = torch.rand(shape, generator=generator("mask"))
    check_fused(*images, mask=mask)
    check_fused(*images, mask=images[1].abs(), eps=images[0].abs() + 0.1, reduction="none")


def constant_rows(width: int) -> tuple[Tensor, Tensor]:
    """Make a pair of images that repeat a column, in the memory of one column."""
    columns = 2 * torch.rand(2, 1, 1, SHAPE[2], 1, generator=generator("columns")).half() - 1
    return tuple(column.expand(*SHAPE[:3], width) for column in columns)


@pytest.mark.slow
@pytest.mark.skipif(FREE_BYTES < 8 * 2**30, reason="the gradient takes 4 GiB")
def test_more_voxels_than_int32_counts() -> None:
    options = {"upstream": -1.5, "wanted": "input", "reduction": "sum"}
    result = evaluate(nec_ext.ngf_loss, *constant_rows(SHAPE[3]), **options)
    expected = expected_result(*constant_rows(64), **options).grad_input
    gradient = result.grad_input
    assert gradient.numel() > 2**31
    assert_gradient_close(gradient[..., :32], expected[..., :32])
    assert_gradient_close(gradient[..., -32:], expected[..., -32:])
    # Rows are constant, so any column is the first, and the mean is that of a few.
    assert torch.equal(gradient[..., SHAPE[3] // 2], gradient[..., 0])
    mean = expected_result(*constant_rows(3)).loss
    assert_loss_close(result.loss, mean * gradient.numel())
