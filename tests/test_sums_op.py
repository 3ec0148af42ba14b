# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The op of parts of a volume: sums, and gradients in given tensors (csrc/ops/schema.cpp)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import threads
from inputs import Case, channels_last, contiguous, expanded, transposed
from test_compile import TESTS, op_arguments
from test_region import region_of, whole
from torch import Tensor

forward = torch.ops.nec_ext.ngf_forward.default
sums = torch.ops.nec_ext.ngf_sums_.default
CASES = [Case("sums_2d", (2, 3, 20, 9)), Case("sums_3d", (2, 1, 7, 8, 9))]
LAYOUTS = [contiguous, transposed, channels_last, expanded]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
layouts = pytest.mark.parametrize("layout", LAYOUTS)
dtypes = pytest.mark.parametrize(
    "dtypes", [(torch.float32, torch.float64), (torch.float16, torch.float16)], ids=str
)
wanteds = pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)], ids=str)
Dtypes = tuple[torch.dtype, torch.dtype]


def arguments_of(case: Case, dtypes: Dtypes) -> tuple[list[Any], list[Any]]:
    """Positional arguments, with maps, up to ``weight``."""
    tensors, settings = op_arguments(case, dtypes, True)
    return [tensor.detach() for tensor in tensors], settings[:-1]


@dtypes
@wanteds
@layouts
@cases
def test_window_of_the_whole(
    case: Case, layout: Any, wanted: tuple[bool, bool], dtypes: Dtypes
) -> None:
    """Sums and gradients of a window are those of the op that allocates them."""
    case = case._replace(layout=layout)
    tensors, settings = arguments_of(case, dtypes)
    window = [(1, size - k) for k, size in enumerate(case.shape[2:])]
    region = region_of(whole(case), whole(case), window)
    weight = settings[-1]
    loss, *gradients, _ = forward(*tensors, *settings, region, 2, None, True, *wanted)
    view = (..., *(slice(*side) for side in window))
    given = [
        torch.full_like(image[view], torch.nan) if w else None
        for image, w in zip(tensors[:2], wanted, strict=True)
    ]
    found = sums(*tensors, *settings, region, False, False, *given)
    voxels = sums(*tensors, *settings, region, False, True, None, None)
    assert found.dtype == voxels.dtype == torch.float64
    assert voxels.item() == pytest.approx(tensors[4].expand(case.shape)[view].sum().item())
    assert weight * (voxels - 0.5 * found).item() == pytest.approx(loss.item(), rel=1e-6)
    for gradient, expected in zip(given, gradients, strict=True):
        assert gradient is None or torch.equal(gradient, expected[view])
        assert gradient is None or gradient.count_nonzero() > 0


@layouts
@cases
def test_planes(case: Case, layout: Any) -> None:
    """One sum for each plane along the slowest axis, the same wherever a window begins and ends."""
    case = case._replace(layout=layout)
    tensors, settings = arguments_of(case, (torch.float64, torch.float64))
    axis = max(range(len(case.shape) - 2), key=lambda k: tensors[0].stride(k + 2))

    def of(begin: int, end: int, of_mask: bool = False, per_plane: bool = True) -> Tensor:
        window = whole(case)
        window[axis] = (begin, end)
        region = region_of(whole(case), whole(case), window)
        return sums(*tensors, *settings, region, per_plane, of_mask, None, None)

    count = case.shape[axis + 2]
    mask = tensors[4].expand(case.shape).double().movedim(axis + 2, 0).flatten(1).sum(1)
    torch.testing.assert_close(of(0, count, of_mask=True), mask, rtol=1e-14, atol=0)
    for of_mask in (False, True):
        planes = of(0, count, of_mask)
        assert planes.shape == (count,)
        for begin, end in ((0, 1), (1, 3), (2, count), (count - 1, count)):
            with threads(2):
                assert torch.equal(of(begin, end, of_mask), planes[begin:end])
        total = of(0, count, of_mask, per_plane=False)
        assert total.item() == pytest.approx(planes.sum().item(), rel=1e-14)


@pytest.mark.parametrize("layout", [contiguous, transposed])
@pytest.mark.parametrize("wanted", [(True, False), (True, True)], ids=str)
@pytest.mark.parametrize("cropped", [False, True])
def test_opcheck(cropped: bool, wanted: tuple[bool, bool], layout: Any) -> None:
    case = CASES[1]._replace(layout=layout)
    tensors, settings = arguments_of(case, (torch.float32, torch.float32))
    window = [(1, 5), (0, 8), (2, 9)] if cropped else whole(case)
    region = region_of(whole(case), whole(case), window) if cropped else []
    shape = [*case.shape[:2], *(high - low for low, high in window)]
    given = [torch.empty(shape) if w else None for w in wanted]
    arguments = (*tensors, *settings, region, cropped, False, *given)
    torch.library.opcheck(sums, arguments, test_utils=TESTS)


@pytest.mark.parametrize(
    ("gradient", "mask", "of_mask"),
    [
        (torch.zeros(2, 3, 20, 8), True, False),
        (torch.zeros(2, 1, 20, 9), True, False),
        (torch.zeros(3, 20, 9), True, False),
        (torch.zeros(2, 3, 20, 9, dtype=torch.bool), True, False),
        (torch.zeros(2, 3, 20, 9), True, True),
        (None, False, True),
    ],
)
def test_what_does_not_fit_is_refused(gradient: Tensor | None, mask: bool, of_mask: bool) -> None:
    tensors, settings = arguments_of(CASES[0], (torch.float32, torch.float32))
    if not mask:
        tensors[4] = None
    with pytest.raises(RuntimeError, match=r"must|needs|broadcastable"):
        sums(*tensors, *settings, [], False, of_mask, gradient, None)
