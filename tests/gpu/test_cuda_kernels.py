# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The kernels: sizes at the edges of tiles, strips and grids, and values that are not looked at.

Images are made on the CPU and moved, and nothing is on the GPU by default: a tensor that the
package itself makes in the wrong place is noticed here.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from covering import covering
from gpu import DEVICE, all_on_gpu, on_gpu
from helpers import DTYPES, FORMULAS, OPERATORS, REDUCTIONS, as_leaves, check_fused, evaluate
from hypothesis import given
from inputs import CASES, LARGE, SMALL, Case, brain, generator
from kernels.test_functional import maps_of
from kernels.test_properties import bounded, problems

import nec_ext

pytestmark = pytest.mark.cuda

# Widths of real data, many planes, and more of each axis than an axis of a grid may have.
VOLUMES = [
    Case("width_155_3d", (1, 2, 37, 41, 155)),
    Case("brain_155_3d", (1, 1, 64, 60, 155), brain),
    Case("planes_3d", (2, 1, 700, 19, 23)),
    Case("width_155_2d", (3, 2, 155, 155)),
    Case("wide_2d", (1, 1, 5, 20003)),
    Case("wide_3d", (1, 1, 3, 4, 5003)),
    Case("many_samples_2d", (66000, 1, 3, 4)),
    Case("many_channels_3d", (1, 66000, 2, 3, 4)),
    Case("many_rows_2d", (1, 1, 66000, 5)),
    Case("many_rows_3d", (1, 1, 3, 66000, 4)),
    Case("many_planes_3d", (1, 1, 66000, 3, 4)),
    Case("many_columns_3d", (1, 1, 3, 4, 66000)),
]
SIZES = {
    2: ((1, 2, 5, 16, 17, 33, 130), (1, 3, 7, 8, 9, 31, 32, 33, 65, 129, 257)),
    3: ((1, 2, 3, 9, 17, 34), (1, 2, 8, 9, 17, 33), (1, 3, 7, 8, 9, 33, 65)),
}


def check(case: Case, dtype: torch.dtype, **options: Any) -> None:
    check_fused(*map(on_gpu, case.images(dtype)), reduction="sum", **all_on_gpu(options))


@covering(case=VOLUMES, dtype=DTYPES, maps=[False, True], options=FORMULAS)
def test_volumes(case: Case, dtype: torch.dtype, maps: bool, options: dict[str, Any]) -> None:
    check(case, dtype, **options, **maps_of(case, maps))


@pytest.mark.parametrize("ndim", SIZES)
@pytest.mark.parametrize(
    ("dtype", "operator"),
    [
        *((torch.float32, operator) for operator in OPERATORS),
        *((dtype, "sobel") for dtype in DTYPES[1:]),
    ],
    ids=str,
)
def test_every_small_size(ndim: int, operator: str, dtype: torch.dtype) -> None:
    for space in itertools.product(*SIZES[ndim]):
        check(Case("size", (1, 2, *space)), dtype, operator=operator)


@bounded
@given(problems())
def test_any_problem(problem: dict[str, Any]) -> None:
    check_fused(**all_on_gpu(problem))


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3, device=DEVICE).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_full_of_nan")
@covering(case=[*CASES, *LARGE], dtype=DTYPES[:3], reduction=REDUCTIONS, masked=[False, True])
def test_all_is_written(case: Case, dtype: torch.dtype, reduction: str, masked: bool) -> None:
    """Gradients, the loss map and the sums between kernels."""
    images = [*map(on_gpu, case.images(dtype))]
    mask = on_gpu(torch.rand(case.shape, generator=generator("mask"))) if masked else None
    result = evaluate(nec_ext.ngf_loss, *images, reduction=reduction, mask=mask)
    assert not any(tensor.isnan().any() for tensor in result)
    assert not nec_ext.ngf_loss(*images, reduction=reduction, mask=mask).isnan().any()


BAD_VALUES = [
    *(("mask", value) for value in (-1.0, -1e-30, -math.inf, math.nan)),
    *itertools.product(["eps", "target_eps"], (0.0, -0.1, math.inf, -math.inf, math.nan)),
]


@covering(bad=BAD_VALUES, reduction=REDUCTIONS, wanted=["none", "input", "both"], case=SMALL)
def test_bad_value_makes_the_loss_nan(
    bad: tuple[str, float], reduction: str, wanted: str, case: Case
) -> None:
    name, value = bad
    images = as_leaves(*map(on_gpu, case.images()), wanted)
    voxel = (1, 1, *(3,) * (len(case.shape) - 2))
    tensor = torch.ones(case.shape)
    tensor[voxel] = value
    loss = nec_ext.ngf_loss(*images, **{name: on_gpu(tensor)}, reduction=reduction)
    assert loss.isnan().sum() == 1
    assert reduction != "none" or loss[voxel].isnan()


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("name", ["target", "mask", "eps", "target_eps"])
def test_tensor_on_another_device_is_refused(name: str, requires_grad: bool) -> None:
    images = dict(zip(("input", "target"), map(on_gpu, SMALL[0].images()), strict=True))
    images["input"].requires_grad_(requires_grad)
    arguments = {**images, name: torch.ones(SMALL[0].shape)}
    with pytest.raises(ValueError, match=rf"^{name} must be on the device of .*, cuda:0, got cpu$"):
        nec_ext.ngf_loss(arguments.pop("input"), arguments.pop("target"), **arguments)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_second_gpu() -> None:
    images = [image.to("cuda:1") for image in SMALL[1].images()]
    result = check_fused(*images, mask=torch.ones(SMALL[1].shape, device="cuda:1"))
    assert {str(tensor.device) for tensor in result} == {"cuda:1"}
    assert torch.cuda.current_device() == 0
