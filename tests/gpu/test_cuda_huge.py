# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""More than 2^31 elements: in the index of an element, in the count of voxels, in the gradient."""

from __future__ import annotations

import pytest
import torch
from gpu import DEVICE, on_gpu
from helpers import (
    assert_gradient_close,
    assert_loss_close,
    check_fused,
    evaluate,
    expected_result,
)
from inputs import generator
from torch import Tensor

import nec_ext

pytestmark = pytest.mark.cuda

BEYOND_INT32 = 2**31 + 1024


def needs(gibibytes: int) -> None:
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < gibibytes * 2**30:
        pytest.skip(f"needs {gibibytes} GiB of the GPU's memory")


@pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
def test_strides_beyond_int32(axis: int) -> None:
    needs(20)
    shape, strides = [1, 1, 3, 5, 6], [0, 0, 30, 6, 1]
    shape[axis] = 2
    strides[axis] = BEYOND_INT32
    images = []
    for name in ("input", "target"):
        image = torch.empty_strided(shape, strides, dtype=torch.float16, device=DEVICE)
        images.append(image.copy_(torch.rand(shape, generator=generator(name))))
    mask = on_gpu(torch.rand(shape, generator=generator("mask")))
    check_fused(*images, mask=mask)
    check_fused(*images, mask=images[1].abs(), eps=images[0].abs() + 0.1, reduction="none")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_more_voxels_than_int32_counts(dtype: torch.dtype) -> None:
    """The loss against the whole reference, in slabs; the gradient in three of them."""
    needs(50)
    planes, *plane = 2050, 1024, 1030
    boundary = 2**31 // (plane[0] * plane[1])
    assert 0 < boundary < planes - 2
    rng = torch.Generator(DEVICE).manual_seed(0)
    input, target = (
        torch.empty(1, 1, planes, *plane, dtype=dtype, device=DEVICE).uniform_(-1, 1, generator=rng)
        for _ in range(2)
    )
    result = evaluate(nec_ext.ngf_loss, input, target, -1.5, "input", reduction="sum")

    def slab(low: int, high: int, halo: int) -> tuple[list[Tensor], slice]:
        """The images in planes low to high and some more, and which of these are meant."""
        first, last = max(low - halo, 0), min(high + halo, planes)
        parts = [image[:, :, first:last] for image in (input, target)]
        return parts, slice(low - first, high - first)

    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for low in range(0, planes, 32):
        parts, own = slab(low, min(low + 32, planes), 1)
        with torch.no_grad():
            loss = nec_ext.reference.ngf_loss(*(part.double() for part in parts), reduction="none")
        total += loss[:, :, own].sum()
    assert_loss_close(result.loss, total)

    for low, high in ((0, 4), (boundary - 1, boundary + 3), (planes - 4, planes)):
        parts, own = slab(low, high, 2)
        expected = expected_result(*parts, -1.5, "input", reduction="sum").grad_input
        assert_gradient_close(result.grad_input[:, :, low:high], expected[:, :, own])
