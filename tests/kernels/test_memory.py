# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Memory above the inputs, in volumes, from torch's own record of its allocations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import WANTED, allocations, as_leaves, random_upstream
from inputs import Case, Layout, contiguous, strided, transposed

import nec_ext

CASE = Case("memory", (1, 2, 32, 64, 64))
VOXELS = 2 * 32 * 64 * 64
SMALL_CHANGE = 64 * 1024  # scalars; what the contract allows is a megabyte


def training_step(
    loss: Callable[..., torch.Tensor], images: list[torch.Tensor], upstream: Any, **options: Any
) -> Any:
    required = [image for image in images if image.requires_grad]
    value = loss(*images, **options)
    return torch.autograd.grad(
        value, required, torch.as_tensor(upstream, dtype=value.dtype).expand(value.shape)
    )


def leaves(dtype: torch.dtype, wanted: str, layout: Layout = contiguous) -> list[torch.Tensor]:
    return as_leaves(*CASE._replace(layout=layout).images(dtype), wanted)


def gradient_bytes(images: list[torch.Tensor]) -> int:
    return sum(VOXELS * image.element_size() for image in images if image.requires_grad)


dtypes = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str
)


@pytest.mark.parametrize("upstream", [1.0, -1.5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("wanted", WANTED)
@dtypes
def test_forward_and_backward_take_the_gradient_and_no_more(
    dtype: torch.dtype, wanted: str, reduction: str, upstream: float
) -> None:
    images = leaves(dtype, wanted)
    peak, level, gradients = allocations(
        lambda: training_step(nec_ext.ngf_loss, images, upstream, reduction=reduction)
    )
    assert len(gradients) == (2 if wanted == "both" else 1)
    assert level >= gradient_bytes(images)  # the gradients themselves: the record is not empty
    assert peak <= gradient_bytes(images) + SMALL_CHANGE


@dtypes
def test_saved_between_forward_and_backward(dtype: torch.dtype) -> None:
    images = leaves(dtype, "input")
    _, level, loss = allocations(lambda: nec_ext.ngf_loss(*images))
    assert loss.requires_grad
    assert level <= gradient_bytes(images) + SMALL_CHANGE


@dtypes
def test_forward_alone_allocates_no_volume(dtype: torch.dtype) -> None:
    images = leaves(dtype, "both")
    with torch.no_grad():
        peak, _, _ = allocations(lambda: nec_ext.ngf_loss(*images))
    assert 0 < peak <= SMALL_CHANGE
    detached = [image.detach() for image in images]
    peak, _, _ = allocations(lambda: nec_ext.ngf_loss(*detached))
    assert 0 < peak <= SMALL_CHANGE


@pytest.mark.parametrize("layout", [strided, transposed])
@pytest.mark.parametrize("wanted", ["none", "input"])
def test_no_hidden_copy_of_a_strided_image(
    layout: Callable[..., torch.Tensor], wanted: str
) -> None:
    images = leaves(torch.float32, wanted, layout)
    if wanted == "none":
        peak, _, _ = allocations(lambda: nec_ext.ngf_loss(*images))
    else:
        peak, _, _ = allocations(lambda: training_step(nec_ext.ngf_loss, images, 0.5))
    assert peak <= gradient_bytes(images) + SMALL_CHANGE


@pytest.mark.parametrize(
    "mask_dtype", [torch.bool, torch.uint8, torch.float16, torch.float32, torch.float64], ids=str
)
def test_maps_and_mixed_dtypes_are_read_where_they_are(mask_dtype: torch.dtype) -> None:
    input, target = CASE.images(torch.float16, torch.float32)
    mask = torch.ones(CASE.shape, dtype=mask_dtype)
    eps = torch.full(CASE.shape, 0.2, dtype=torch.float64)
    images = [input.requires_grad_(), target]
    peak, _, _ = allocations(
        lambda: training_step(nec_ext.ngf_loss, images, 0.5, mask=mask, eps=eps)
    )
    assert peak <= gradient_bytes(images) + SMALL_CHANGE


def test_broadcast_maps_are_not_expanded() -> None:
    images = leaves(torch.float32, "input")
    mask = torch.ones(1, 1, *CASE.shape[2:], dtype=torch.bool)
    eps = torch.full((2, 1, 1, 1), 0.2)
    peak, _, _ = allocations(
        lambda: training_step(nec_ext.ngf_loss, images, 0.5, mask=mask, eps=eps)
    )
    assert peak <= gradient_bytes(images) + SMALL_CHANGE


def test_loss_map() -> None:
    """With reduction none forward allocates the map, and backward the gradient."""
    images = leaves(torch.float32, "input")
    volume = gradient_bytes(images)
    _, level, loss = allocations(lambda: nec_ext.ngf_loss(*images, reduction="none"))
    assert level <= volume + SMALL_CHANGE
    upstream = random_upstream(CASE.shape)
    peak, _, _ = allocations(lambda: torch.autograd.grad(loss, images[0], upstream))
    assert peak <= volume + SMALL_CHANGE


def test_second_backward() -> None:
    """Computed again, in one more volume: the first gradient is the caller's."""
    images = leaves(torch.float32, "input")
    loss = nec_ext.ngf_loss(*images)

    def backward() -> Any:
        return torch.autograd.grad(loss, images[0], torch.tensor(0.5), retain_graph=True)

    peak, level, first = allocations(backward)
    assert max(peak, level) <= SMALL_CHANGE  # what forward has stored is handed out
    peak, level, second = allocations(backward)
    assert second[0].data_ptr() != first[0].data_ptr()
    assert level >= gradient_bytes(images)
    assert peak <= gradient_bytes(images) + SMALL_CHANGE


def test_graph_is_freed() -> None:
    images = leaves(torch.float32, "input")

    def three_steps() -> None:
        for _ in range(3):
            training_step(nec_ext.ngf_loss, images, 0.5)

    peak, level, _ = allocations(three_steps)
    assert peak <= gradient_bytes(images) + SMALL_CHANGE
    assert abs(level) <= SMALL_CHANGE


def test_a_tenth_of_the_eager_formula() -> None:
    """The record sees what the plain formula allocates, and the fused loss is far from it."""
    images = leaves(torch.float32, "input")
    fused, _, _ = allocations(lambda: training_step(nec_ext.ngf_loss, images, 0.5))
    eager, _, _ = allocations(lambda: training_step(nec_ext.reference.ngf_loss, images, 0.5))
    assert eager >= 10 * gradient_bytes(images)
    assert fused <= eager / 10
