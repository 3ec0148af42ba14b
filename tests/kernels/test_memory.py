# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Memory above the inputs, in volumes, from torch's own record of its allocations."""

from typing import Any

import pytest
import torch
from covering import covering
from helpers import DTYPES, WANTED, allocations, as_leaves, makes_tensors_on_gpu, random_upstream
from inputs import Case, Layout, channels_last, contiguous, cropped, strided, transposed
from torch import Tensor

import nec_ext


def images_of(
    dtype: torch.dtype = torch.float32, wanted: str = "input", layout: Layout = contiguous
) -> list[Tensor]:
    shape = (1, 2, 64, 128, 256) if makes_tensors_on_gpu() else (1, 2, 32, 64, 64)
    return as_leaves(*Case("memory", shape, layout=layout).images(dtype), wanted)


def gradient_bytes(images: list[Tensor]) -> int:
    return sum(image.numel() * image.element_size() for image in images if image.requires_grad)


def small_change() -> int:
    """Return the bytes that scalars may take: on a GPU an allocation is rounded up."""
    return 2**20 if makes_tensors_on_gpu() else 2**16


def training_step(
    images: list[Tensor], upstream: float = 0.5, **options: Any
) -> tuple[Tensor, ...]:
    required = [image for image in images if image.requires_grad]
    value = nec_ext.ngf_loss(*images, **options)
    return torch.autograd.grad(value, required, torch.full_like(value, upstream))


LAYOUTS = [contiguous, cropped, strided, transposed, channels_last]


@covering(
    dtype=DTYPES, layout=LAYOUTS, wanted=WANTED, reduction=["mean", "sum"], upstream=[1.0, -1.5]
)
def test_forward_and_backward_take_the_gradient_and_no_more(
    dtype: torch.dtype, layout: Layout, wanted: str, reduction: str, upstream: float
) -> None:
    images = images_of(dtype, wanted, layout)
    peak, level, gradients = allocations(
        lambda: training_step(images, upstream, reduction=reduction)
    )
    assert len(gradients) == (2 if wanted == "both" else 1)
    assert level >= gradient_bytes(images)  # the gradients themselves: the record is not empty
    assert peak <= gradient_bytes(images) + small_change()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_that_can_be_differentiated_takes_two_volumes(dtype: torch.dtype) -> None:
    """The stored one stays in the graph, for a second backward."""
    input, target = images_of(dtype)

    def step() -> Tensor:
        loss = nec_ext.ngf_loss(input, target)
        return torch.autograd.grad(loss, input, create_graph=True)[0]

    for function in (step, lambda: torch.func.grad(nec_ext.ngf_loss)(input.detach(), target)):
        peak, _, _ = allocations(function)
        assert peak <= 2 * gradient_bytes([input]) + small_change()


@covering(dtype=DTYPES, layout=LAYOUTS)
def test_forward(dtype: torch.dtype, layout: Layout) -> None:
    """One volume is saved for backward, and none is allocated where no gradient is asked for."""
    images = images_of(dtype, layout=layout)
    _, level, loss = allocations(lambda: nec_ext.ngf_loss(*images))
    assert loss.requires_grad
    assert level <= gradient_bytes(images) + small_change()
    with torch.no_grad():
        peak, _, _ = allocations(lambda: nec_ext.ngf_loss(*images))
    assert 0 < peak <= small_change()
    images = images_of(dtype, "none", layout)
    peak, _, _ = allocations(lambda: nec_ext.ngf_loss(*images))
    assert 0 < peak <= small_change()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, *DTYPES], ids=str)
def test_maps_and_mixed_dtypes_are_read_where_they_are(dtype: torch.dtype) -> None:
    images = [images_of(torch.float16)[0], images_of()[1]]
    shape = images[0].shape
    for size in (shape, shape[2:], (2, 1, 1, 1)):
        maps = {"mask": torch.ones(size, dtype=dtype), "eps": torch.full(size, 0.2).double()}
        peak, _, _ = allocations(lambda maps=maps: training_step(images, **maps))
        assert peak <= gradient_bytes(images) + small_change()


def test_loss_map() -> None:
    images = images_of()
    most = gradient_bytes(images) + small_change()
    _, level, loss = allocations(lambda: nec_ext.ngf_loss(*images, reduction="none"))
    assert level <= most
    upstream = random_upstream(loss.shape)
    peak, _, _ = allocations(lambda: torch.autograd.grad(loss, images[0], upstream))
    assert peak <= most
