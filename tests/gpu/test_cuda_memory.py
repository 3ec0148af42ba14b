# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Memory above the inputs, in volumes, and images of more than 2^31 voxels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu import DEVICE, on_gpu
from helpers import (
    DTYPES,
    WANTED,
    as_leaves,
    assert_gradient_close,
    assert_loss_close,
    check_fused,
    evaluate,
    expected_result,
)
from inputs import Case, Layout, channels_last, contiguous, cropped, generator, strided, transposed
from torch import Tensor

import nec_ext
from examples.common.measure import peak_memory

pytestmark = pytest.mark.cuda

CASE = Case("memory", (1, 2, 64, 128, 256))
VOXELS = torch.Size(CASE.shape).numel()
MEGABYTE = 2**20
GIB = 2**30
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def leaves(dtype: torch.dtype, wanted: str, layout: Layout = contiguous) -> list[Tensor]:
    images = CASE._replace(layout=layout).images(dtype)
    return as_leaves(*map(on_gpu, images), wanted)


def gradient_bytes(images: list[Tensor]) -> int:
    return sum(VOXELS * image.element_size() for image in images if image.requires_grad)


def training_step(images: list[Tensor], upstream: float, **options: Any) -> tuple[Tensor, ...]:
    loss = nec_ext.ngf_loss(*images, **options)
    required = [image for image in images if image.requires_grad]
    return torch.autograd.grad(loss, required, torch.full_like(loss, upstream))


@pytest.mark.parametrize("upstream", [1.0, -1.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("wanted", WANTED)
@dtypes
def test_forward_and_backward_take_the_gradient_and_no_more(
    dtype: torch.dtype, wanted: str, reduction: str, upstream: float
) -> None:
    images = leaves(dtype, wanted)
    peak = peak_memory(lambda: training_step(images, upstream, reduction=reduction), DEVICE)
    assert gradient_bytes(images) <= peak <= gradient_bytes(images) + MEGABYTE


@dtypes
def test_saved_between_forward_and_backward(dtype: torch.dtype) -> None:
    images = leaves(dtype, "input")
    torch.cuda.empty_cache()  # a cached block may be larger than what is asked for
    before = torch.cuda.memory_allocated()
    loss = nec_ext.ngf_loss(*images)
    assert loss.requires_grad
    assert torch.cuda.memory_allocated() - before <= gradient_bytes(images) + MEGABYTE


@dtypes
def test_forward_alone_allocates_no_volume(dtype: torch.dtype) -> None:
    images = leaves(dtype, "both")
    with torch.no_grad():
        assert peak_memory(lambda: nec_ext.ngf_loss(*images), DEVICE) <= MEGABYTE
    images = leaves(dtype, "none")
    assert peak_memory(lambda: nec_ext.ngf_loss(*images), DEVICE) <= MEGABYTE


@pytest.mark.parametrize("layout", [cropped, strided, transposed, channels_last])
@pytest.mark.parametrize("wanted", ["none", "input"])
def test_no_hidden_copy_of_a_strided_image(layout: Layout, wanted: str) -> None:
    images = leaves(torch.float32, wanted, layout)
    if wanted == "none":
        peak = peak_memory(lambda: nec_ext.ngf_loss(*images), DEVICE)
    else:
        peak = peak_memory(lambda: training_step(images, 0.5), DEVICE)
    assert peak <= gradient_bytes(images) + MEGABYTE


@pytest.mark.parametrize(
    "mask_dtype", [torch.bool, torch.uint8, torch.float16, torch.float32, torch.float64], ids=str
)
def test_maps_and_mixed_dtypes_are_read_where_they_are(mask_dtype: torch.dtype) -> None:
    input, target = map(on_gpu, CASE.images(torch.float16, torch.float32))
    images = [input.requires_grad_(), target]
    for shape in (CASE.shape, CASE.shape[2:], (2, 1, 1, 1)):
        mask = torch.ones(shape, dtype=mask_dtype, device=DEVICE)
        eps = torch.full(shape, 0.2, dtype=torch.float64, device=DEVICE)
        peak = peak_memory(lambda m=mask, e=eps: training_step(images, 0.5, mask=m, eps=e), DEVICE)
        assert peak <= gradient_bytes(images) + MEGABYTE


def test_second_backward() -> None:
    """Computed again, in one more volume: the first gradient is the caller's."""
    images = leaves(torch.float32, "input")
    loss = nec_ext.ngf_loss(*images)
    upstream = torch.full_like(loss, 0.5)
    gradients = []

    def backward() -> None:
        gradients.append(torch.autograd.grad(loss, images[0], upstream, retain_graph=True))

    assert peak_memory(backward, DEVICE) <= MEGABYTE  # what forward has stored is handed out
    assert peak_memory(backward, DEVICE) <= gradient_bytes(images) + MEGABYTE
    assert torch.equal(gradients[0][0], gradients[1][0])


def test_ten_times_less_than_the_plain_formula() -> None:
    images = leaves(torch.float32, "input")
    peak = peak_memory(lambda: evaluate(nec_ext.reference.ngf_loss, *images, 0.5), DEVICE)
    assert peak >= 10 * gradient_bytes(images)


# --- More than 2^31 -------------------------------------------------------------------------------

BEYOND_INT32 = 2**31 + 1024


def free_memory() -> int:
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def needs(gibibytes: int) -> None:
    if free_memory() < gibibytes * GIB:
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
