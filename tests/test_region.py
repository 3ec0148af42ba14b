# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The ops on parts of a volume: added up, they are the whole (csrc/problem.h).

Two ways to cut. A process owns a range of planes and stores one more of each neighbour: the loss
terms are its own voxels, their gradient reaches the halo, and overlapping gradients are added. A
tile of a volume on one device writes the gradient of its own voxels only, to which the terms of one
more plane on each side contribute.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from helpers import (
    EPS_MODES,
    OPERATORS,
    Result,
    assert_gradient_close,
    assert_result_close,
    expected_result,
)
from inputs import Case, generator, transposed
from torch import Tensor

forward = torch.ops.nec_ext.ngf_forward.default
backward = torch.ops.nec_ext.ngf_backward.default
CHOICES = {"none": 0, "mean": 1, "sum": 2}
# The last has more rows than a tile of the CPU sweep.
CASES = [
    Case("region_2d", (2, 2, 9, 11)),
    Case("region_3d", (1, 2, 8, 7, 9)),
    Case("region_tiles", (1, 1, 4, 320, 12)),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
modes = pytest.mark.parametrize("eps_mode", EPS_MODES)
operators = pytest.mark.parametrize("operator", OPERATORS)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
Range = tuple[int, int]


class Setup(NamedTuple):
    """What stays the same from part to part."""

    operator: str = "central"
    eps_mode: str = "additive"
    reduction: str = "mean"

    def options(self, case: Case) -> dict[str, Any]:
        """Distinct in every axis and voxel, so that a part in the wrong place is noticed."""
        rng = generator("region")
        return {
            **self._asdict(),
            "eps": 0.1 + torch.rand(case.shape, generator=rng),
            "target_eps": 0.3,
            "mask": torch.rand(case.shape, generator=rng),
            "spacing": [0.7, 1.3, 2.5][: len(case.shape) - 2],
            "weight": 1.7,
        }

    def run(
        self,
        case: Case,
        images: tuple[Tensor, Tensor],
        crop: list[Range],
        terms: list[Range],
        window: list[Range],
    ) -> Result:
        """The forward op on a crop of the volume."""
        o = self.options(case)
        view = (..., *(slice(*part) for part in crop))
        tensors = [tensor[view] for tensor in (*images, o["eps"])]
        modes = EPS_MODES.index(self.eps_mode), OPERATORS.index(self.operator)
        result = forward(
            *(*tensors, None, o["mask"][view]),
            *(0.0, o["target_eps"], *modes, o["spacing"], o["weight"]),
            region_of(crop, terms, window),
            CHOICES[self.reduction],
            o["mask"].double().sum().item(),  # of the whole volume: what all ranks would agree on
            *(True, True, True),
        )
        return Result(*result[:3])


def region_of(crop: list[Range], terms: list[Range], window: list[Range]) -> list[int]:
    """The op's argument: boxes of the volume, in the coordinates of the crop."""
    return [
        part[side] - cropped[0]
        for box in (terms, window)
        for side in (0, 1)
        for part, cropped in zip(box, crop, strict=True)
    ]


def whole(case: Case) -> list[Range]:
    return [(0, size) for size in case.shape[2:]]


def pieces(case: Case, axes: tuple[int, ...]) -> Iterator[list[Range]]:
    """Boxes that cover the volume, cut in uneven parts along some of its axes."""
    cuts = []
    for axis, size in enumerate(case.shape[2:]):
        edges = sorted({0, 1, size // 3, size // 2, size}) if axis in axes else [0, size]
        cuts.append(list(itertools.pairwise(edges)))
    return map(list, itertools.product(*cuts))


def grown(box: list[Range], case: Case, by: int) -> list[Range]:
    return [
        (max(lo - by, 0), min(hi + by, size))
        for (lo, hi), size in zip(box, case.shape[2:], strict=True)
    ]


def place(part: Tensor, box: list[Range], into: Tensor) -> None:
    into[(..., *(slice(*side) for side in box))] += part


def axes_of(case: Case) -> list[tuple[int, ...]]:
    ndim = len(case.shape) - 2
    return [*((axis,) for axis in range(ndim)), tuple(range(ndim))]


def check_sum(
    case: Case, dtype: torch.dtype, setup: Setup, parts: Iterator[tuple[list[Range], Result]]
) -> None:
    """Losses and gradients of the parts add up to the reference's on the whole volume."""
    images = case.images(dtype)
    total = Result(
        torch.zeros((), dtype=torch.float64),
        *(torch.zeros(case.shape, dtype=torch.float64) for _ in "12"),
    )
    for box, part in parts:
        total.loss.add_(part.loss)
        place(part.grad_input, box, total.grad_input)
        place(part.grad_target, box, total.grad_target)
    rounded = Result(*(tensor.to(dtype) for tensor in total))
    assert_result_close(rounded, expected_result(*images, 1.0, **setup.options(case)))


@dtypes
@modes
@operators
@cases
def test_processes_with_a_halo(
    case: Case, operator: str, eps_mode: str, dtype: torch.dtype
) -> None:
    setup = Setup(operator, eps_mode)
    for axes in axes_of(case):
        images = case.images(dtype)
        stored = ((grown(own, case, 1), own) for own in pieces(case, axes))
        parts = ((box, setup.run(case, images, box, own, box)) for box, own in stored)
        check_sum(case, dtype, setup, parts)


@dtypes
@modes
@operators
@cases
def test_tiles_of_a_volume(case: Case, operator: str, eps_mode: str, dtype: torch.dtype) -> None:
    setup = Setup(operator, eps_mode)
    for axes in axes_of(case):
        images = case.images(dtype)
        parts = (
            (whole(case), setup.run(case, images, whole(case), grown(own, case, 1), own))
            for own in pieces(case, axes)
        )
        check_sum(case, dtype, setup, parts)


@operators
@cases
def test_tiles_cut_out_with_two_planes_around(case: Case, operator: str) -> None:
    """A tile needs no more: the terms of its gradient, and what their differences read."""
    setup = Setup(operator, reduction="sum")
    for axes in axes_of(case):
        images = case.images()
        crops = ((grown(own, case, 2), own) for own in pieces(case, axes))
        parts = (
            (crop, setup.run(case, images, crop, grown(own, case, 1), own)) for crop, own in crops
        )
        check_sum(case, torch.float32, setup, parts)


@operators
def test_tiles_of_a_transposed_volume(operator: str) -> None:
    """A region is given along the tensor's axes, whatever their order in memory."""
    case = CASES[1]._replace(layout=transposed)
    setup = Setup(operator)
    images = case.images()
    for axes in axes_of(case):
        parts = (
            (whole(case), setup.run(case, images, whole(case), grown(own, case, 1), own))
            for own in pieces(case, axes)
        )
        check_sum(case, torch.float32, setup, parts)


@cases
def test_outside_the_window_is_zero(case: Case) -> None:
    images = case.images()
    own = [(1, size - 2) for size in case.shape[2:]]
    for reduction in CHOICES:
        result = Setup(reduction=reduction).run(case, images, whole(case), whole(case), own)
        for tensor in result.tensors if reduction == "none" else result.tensors[1:]:
            if tensor.shape == case.shape:
                outside = tensor.clone()
                outside[(..., *(slice(*side) for side in own))] = 0
                assert outside.count_nonzero() == 0
                assert tensor.count_nonzero() > 0


@operators
@cases
def test_loss_map_of_tiles(case: Case, operator: str) -> None:
    setup = Setup(operator, reduction="none")
    images = case.images()
    total = torch.zeros(case.shape)
    for own in pieces(case, axes_of(case)[-1]):
        total += setup.run(case, images, whole(case), whole(case), own).loss
    expected = setup.run(case, images, whole(case), whole(case), whole(case))
    assert torch.equal(total, expected.loss)


@operators
@cases
def test_backward_op_of_processes_and_tiles(case: Case, operator: str) -> None:
    images = case.images()
    o = Setup(operator).options(case)
    upstream = torch.randn(case.shape, generator=generator("upstream"))

    def run(crop: list[Range], terms: list[Range], window: list[Range]) -> list[Tensor]:
        view = (..., *(slice(*part) for part in crop))
        tensors = [tensor[view] for tensor in (upstream, *images, o["eps"])]
        numbers = (0.0, o["target_eps"], 0, OPERATORS.index(operator), o["spacing"], o["weight"])
        return backward(
            *tensors, None, o["mask"][view], *numbers, region_of(crop, terms, window), True, True
        )

    expected = expected_result(*images, upstream, **{**o, "reduction": "none"})
    for own_way in (True, False):
        totals = [torch.zeros(case.shape), torch.zeros(case.shape)]
        for own in pieces(case, axes_of(case)[-1]):
            crop = grown(own, case, 1) if own_way else whole(case)
            found = run(crop, own, crop) if own_way else run(crop, grown(own, case, 1), own)
            for gradient, total in zip(found, totals, strict=True):
                place(gradient, crop, total)
        assert_gradient_close(totals[0], expected.grad_input)
        assert_gradient_close(totals[1], expected.grad_target)


def test_count_divides_the_sum() -> None:
    case = CASES[0]
    images = case.images(torch.float64)

    def loss(count: float | None, reduction: str) -> Tensor:
        settings = (None, None, None, 0.15, 0.15, 0, 0, [1.0, 1.0], 1.0, [])
        return forward(*images, *settings, CHOICES[reduction], count, True, False, False)[0]

    summed = loss(None, "sum")
    assert torch.equal(loss(1000.0, "sum"), summed)
    assert loss(1000.0, "mean").item() == pytest.approx(summed.item() / 1000, rel=1e-15)
    assert loss(None, "mean").item() == pytest.approx(summed.item() / images[0].numel(), rel=1e-15)


@pytest.mark.parametrize(
    "region",
    [
        [0, 0, 9, 11, 0, 0, 9],
        [0, 0, 9, 12, 0, 0, 9, 11],
        [0, -1, 9, 11, 0, 0, 9, 11],
        [0, 0, 9, 11, 4, 0, 4, 11],
    ],
)
def test_wrong_region_is_refused(region: list[int]) -> None:
    images = CASES[0].images()
    settings = (None, None, None, 0.15, 0.15, 0, 0, [1.0, 1.0], 1.0, region)
    with pytest.raises(RuntimeError, match="region must"):
        forward(*images, *settings, 1, None, True, True, False)
