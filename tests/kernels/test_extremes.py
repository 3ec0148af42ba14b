# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Very large and very small numbers, images without extent, NaN and infinity."""

import itertools
import math
import os
from pathlib import Path

import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    DTYPES,
    EPS_MODES,
    FORMULAS,
    REDUCTIONS,
    Result,
    assert_as_loops,
    assert_gradient_close,
    assert_loss_close,
    assert_result_close,
    check_fused,
    evaluate,
    expected_result,
    makes_tensors_on_gpu,
)
from inputs import SMALL, Case, by_name, generator
from oracle import HAS_WIDE_RANGE, loop_loss
from torch import Tensor

import nec_ext

TINY = [Case("tiny_2d", (1, 1, 3, 4)), Case("tiny_3d", (1, 1, 3, 2, 3))]
BAD = [math.nan, math.inf, -math.inf]

# By dtype: scales of either image, and eps, a Python float: beyond the dtype's range the result is
# that of the limit.
RANGES = {
    torch.float32: ([1e18, 3e38, 1e-38, 1.0], [0.15, 1e-10, 1e-30, 1e10, 1e30, 1e-300, 1e300]),
    torch.bfloat16: ([3e38, 1e-38, 1.0], [0.15]),
    torch.float16: ([6e4, 1e-7, 1.0], [0.15, 1e-3, 1e30]),
    torch.float64: ([1.7e308, 1e-100, 1e-308, 1.0], [0.15, 1e-62, 1e58, 1e-300]),
}
SCALES = [
    (dtype, *scales)
    for dtype, (of_images, of_eps) in RANGES.items()
    for scales in itertools.product(of_images, of_images, of_eps)
    if HAS_WIDE_RANGE or dtype != torch.float64
]
if HAS_WIDE_RANGE:  # the product of the gradients vanishes, and its derivative does not
    SCALES.append((torch.float64, 1e-100, 1e-300, 1e-58))


@covering(scales=SCALES, case=TINY, options=ALL_FORMULAS)
def test_scales(
    scales: tuple[torch.dtype, float, float, float], case: Case, options: dict[str, str]
) -> None:
    dtype, input_scale, target_scale, eps = scales
    # The CUDA kernels measure differences in units of 1/16, in which 1e-38 has few digits left.
    if dtype == torch.float32 and torch.get_default_device().type == "cuda":
        input_scale, target_scale = max(input_scale, 1e-37), max(target_scale, 1e-37)
    input, target = case.images(torch.float64)
    images = (input_scale * input).to(dtype), (target_scale * target).to(dtype)
    assert all(image.isfinite().all() for image in images)
    assert_as_loops(nec_ext.ngf_loss, *images, eps=eps, **options)


@covering(
    spacing=[1e-30, 1e-20, 1e20, 1e30], in_voxels=[False, True], eps_mode=EPS_MODES, case=TINY
)
def test_extreme_spacing(spacing: float, in_voxels: bool, eps_mode: str, case: Case) -> None:
    eps = 0.15 / spacing if in_voxels else 0.15
    options = {"spacing": spacing, "eps": eps, "eps_mode": eps_mode}
    assert_as_loops(nec_ext.ngf_loss, *case.images(), **options)


# Differences in units of one axis are larger than the images by the ratio of two spacings.
@covering(
    scales=[(3e38, (1, 1, 4)), (1e38, (0.5, 0.5, 8)), (3e38, (4, 1, 1))],
    options=ALL_FORMULAS,
)
def test_extreme_scales_and_unequal_spacing(
    scales: tuple[float, tuple[float, ...]], options: dict[str, str]
) -> None:
    scale, spacing = scales
    images = (scale * image for image in TINY[1].images())
    assert_as_loops(nec_ext.ngf_loss, *images, spacing=spacing, **options)


@covering(scale=[1e30, 1e-30, 1e-37], reduction=REDUCTIONS, case=TINY)
def test_extreme_mask(scale: float, reduction: str, case: Case) -> None:
    mask = scale * torch.rand(case.shape, generator=generator("mask"))
    # A reduced loss is relative; a loss map would not be judged at a scale of 1e-30.
    weight = 1.0 if reduction == "mean" else 1 / scale
    options = {"mask": mask, "reduction": reduction, "weight": weight}
    assert_as_loops(nec_ext.ngf_loss, *case.images(), **options)


@pytest.mark.parametrize("value", [1e30, -3e38, 1e-38])
def test_one_extreme_voxel_among_many(value: float) -> None:
    input, target = SMALL[1].images()
    input[1, 0, 2, 3, 4] = value
    check_fused(input, target)


@pytest.mark.parametrize("options", [{"eps": 1e-46}, {"eps": 1e39}, {"spacing": 1e-300}], ids=str)
def test_numbers_beyond_float32(options: dict[str, float]) -> None:
    for images in (TINY[1].images(), torch.ones(2, *TINY[1].shape)):
        assert nec_ext.ngf_field(images[0], **options).isfinite().all()
        for functions in (nec_ext, nec_ext.reference):
            assert_as_loops(functions.ngf_loss, *images, **options)


@covering(scales=[(3e38, 3e38), (1e30, 1.0), (1e-38, 1e-38)], options=FORMULAS)
def test_reference_in_float32(scales: tuple[float, float], options: dict[str, str]) -> None:
    pair = zip(scales, TINY[1].images(torch.float64), strict=True)
    images = [(scale * image).float() for scale, image in pair]
    result = evaluate(nec_ext.reference.ngf_loss, *images, **options)
    assert all(tensor.isfinite().all() for tensor in result.tensors)
    expected = loop_loss(*images, **options)[0]
    assert_loss_close(result.loss, torch.as_tensor(expected.astype(float)))


@covering(case=SMALL, dtype=DTYPES[:3], reduction=REDUCTIONS, shape=["full", "0-dim"])
def test_mask_of_zeros(case: Case, dtype: torch.dtype, reduction: str, shape: str) -> None:
    mask = torch.zeros(case.shape if shape == "full" else ())
    options = {"mask": mask, "reduction": reduction, "weight": -2.0}
    result = evaluate(nec_ext.ngf_loss, *case.images(dtype), **options)
    assert all((tensor == 0).all() for tensor in result.tensors)


@covering(
    case=[*TINY, *by_name("thin_1x1", "thin_1x7", "thin_1x1x5", "thin_2x2x2")],
    bad=BAD,
    dtype=DTYPES[:3],
    which=[0, 1],
    options=FORMULAS,
)
def test_bad_voxel_shows(
    case: Case, bad: float, dtype: torch.dtype, which: int, options: dict[str, str]
) -> None:
    nothing = torch.zeros(case.shape)
    for voxel in torch.ones(case.shape).nonzero():
        images = case.images(dtype)
        images[which][tuple(voxel)] = bad
        for mask in (None, nothing):
            assert nec_ext.ngf_loss(*images, mask=mask, **options).isnan()
            assert nec_ext.ngf_loss(*images, mask=mask, reduction="sum", **options).isnan()
        losses = nec_ext.ngf_loss(*images, reduction="none", **options)
        expected = nec_ext.reference.ngf_loss(*images, reduction="none", **options)
        assert torch.equal(losses.isnan(), expected.isnan())
        with_gradient = evaluate(nec_ext.ngf_loss, *images, **options)
        assert with_gradient.loss.isnan()
        assert not with_gradient[1 + which].isfinite().all()


@pytest.mark.parametrize("bad", [*BAD, 1e25])
@pytest.mark.parametrize("length, reduction", [(6, "none"), (55, "sample")])
def test_a_bad_image_leaves_the_others_alone(bad: float, length: int, reduction: str) -> None:
    """They lie beside it in a row, or their rows end where its rows begin."""
    images = Case("rows", (20, 1, 4, 5, length)).images()
    expected = evaluate(nec_ext.ngf_loss, *images, reduction=reduction)
    images[0][7] = bad
    found = evaluate(nec_ext.ngf_loss, *images, reduction=reduction)
    others = torch.arange(20) != 7
    assert_result_close(
        Result(*(tensor[others] for tensor in found)),
        Result(*(tensor[others] for tensor in expected)),
    )


# --- More than 2^31 elements: in an index, in the count of voxels, in the gradient ----------------

BEYOND_INT32 = 2**31 + 1024
SHAPE = (1, 1, 2**16 + 2, 2**15 + 2)  # a little more than 2^31 voxels
FREE_BYTES = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory(size: int, file: Path) -> Tensor:
    """Make so many halves; on the CPU in a file with a hole that nobody reads."""
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
