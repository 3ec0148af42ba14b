# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The ops outside of the package's autograd.Function, as csrc/ops/schema.cpp defines them."""

from functools import partial
from typing import Any

import pytest
import torch
from covering import covering
from helpers import TESTS, assert_as_reference, assert_gradient_close, op_arguments, threads
from inputs import SMALL, Case, by_name, channels_last, contiguous, expanded, transposed
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import nec_ext

forward = torch.ops.nec_ext.ngf_forward.default
backward = torch.ops.nec_ext.ngf_backward.default
sums = torch.ops.nec_ext.ngf_sums_.default
scale = torch.ops.nec_ext.ngf_scale_.default
FLOATS, DOUBLES = (torch.float32,) * 2, (torch.float64,) * 2


@covering(case=by_name("noise_3d", "channels_last_2d", "strided_3d"), target_only=[False, True])
def test_called_directly(case: Case, target_only: bool) -> None:
    """The gradient of the loss is right whatever the op was asked to store."""
    (_, _, *maps), numbers = op_arguments(case, DOUBLES, True)
    options = dict(zip(("eps", "target_eps", "mask"), maps, strict=True))
    options |= {"eps_mode": "quadrature", "operator": "forward"}
    options |= {"spacing": numbers[5], "weight": numbers[6]}

    def loss(input: Tensor, target: Tensor, **_: Any) -> Tensor:
        return forward(input, target, *maps, *numbers, 1, False, False, target_only)[0]

    wanted = "target" if target_only else "both"
    assert_as_reference(loss, *case.images(*DOUBLES), wanted=wanted, **options)


def test_derivatives_of_a_direct_call() -> None:
    tensors, numbers = op_arguments(Case("tiny", (1, 2, 3, 4)), DOUBLES, True)
    tensors[-1] = tensors[-1] + 0.5  # a mask of 0 must not become less
    leaves = [tensor.double().requires_grad_() for tensor in tensors]
    for reduction in range(3):
        loss = partial(lambda r, *t: forward(*t, *numbers, r, True, False, False)[0], reduction)
        assert gradcheck(loss, leaves) and gradgradcheck(loss, leaves)


def test_torch_finds_the_gradient_in_order() -> None:
    for case in by_name("noise_2d", "strided_3d"):
        tensors, numbers = op_arguments(case, (torch.float32, torch.float64), True, True)
        torch.library.opcheck(forward, (*tensors, *numbers, 1, True, False, False))


def test_no_derivative_is_left_out() -> None:
    tensors, numbers = op_arguments(SMALL[0], DOUBLES, True, True)
    rest = (*numbers, 1, True, False, False)
    input, target, *maps = (tensor.detach() for tensor in tensors)
    with pytest.raises(RuntimeError, match="ngf_backward has no derivative by input"):
        backward(torch.tensor(1.0), *tensors, *numbers, True, False)
    with pytest.raises(RuntimeError, match="ngf_sums_ has no derivative by input"):
        sums(*tensors, *numbers, 2, 0, 9, False, False, None, None)
    with pytest.raises(RuntimeError, match="ngf_scale_ has no derivative by gradient"):
        scale(tensors[0], torch.tensor(2.0), None)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="no forward-mode derivative"):
        forward(forward_ad.make_dual(input, target), target, *maps, *rest)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused() -> None:
    for loss in (nec_ext.ngf_loss, nec_ext.NGFLoss(), torch.nn.Sequential(nec_ext.NGFLoss())):
        with pytest.raises(NotImplementedError, match=r"torch\.jit\.script cannot compile"):
            torch.jit.script(loss)


@covering(
    case=by_name("noise_2d", "strided_3d", "transposed_3d", "chunks_3d"),
    dtype=[torch.float64, torch.float16],
)
def test_scaled_in_place(case: Case, dtype: torch.dtype) -> None:
    gradient, _ = case.images(dtype)
    whole = torch.empty(0, dtype=torch.uint8).set_(gradient.untyped_storage())
    before = whole.clone()
    upstream, factor = torch.tensor(-2.5), torch.tensor(0.7)
    expected = (gradient.double() * upstream.double() * factor.double()).to(dtype)
    scale(gradient, upstream, factor)
    assert_gradient_close(gradient, expected)
    assert 0 < (before != whole).sum() <= gradient.numel() * gradient.element_size()


CASES = [Case("sums_2d", (2, 3, 20, 9)), Case("sums_3d", (2, 1, 7, 8, 9))]
LAYOUTS = [contiguous, transposed, channels_last, expanded]


def slowest_axis(tensor: Tensor) -> int:
    return max(range(2, tensor.dim()), key=tensor.stride)


@covering(
    case=CASES,
    layout=LAYOUTS,
    wanted=[(True, False), (False, True), (True, True)],
    dtypes=[(torch.float32, torch.float64), (torch.float16, torch.float16)],
    form=range(4),
)
def test_window_of_the_whole(case: Case, layout: Any, wanted: Any, dtypes: Any, form: int) -> None:
    """Sums and gradients of a window are those of the op that allocates them."""
    tensors, settings = op_arguments(case._replace(layout=layout), dtypes, True, form=form)
    _, *gradients, _ = forward(*tensors, *settings, 2, True, *wanted)
    losses, *_ = forward(*tensors, *settings, 0, True, False, False)
    base, slope = [(1, 0.5), (1, 1), (1, 1), (0, 0.5)][form]  # of the loss in the sums
    for dim in range(2, len(case.shape)):
        begin, end = 1, case.shape[dim] - 2
        view = (*[slice(None)] * dim, slice(begin, end))
        given = [
            torch.full_like(image[view], torch.nan) if w else None
            for image, w in zip(tensors[:2], wanted, strict=True)
        ]
        found = sums(*tensors, *settings, dim, begin, end, False, False, *given)
        voxels = sums(*tensors, *settings, dim, begin, end, False, True, None, None)
        assert found.dtype == voxels.dtype == torch.float64
        mask = tensors[4].expand(case.shape)[view]
        assert voxels.item() == pytest.approx(mask.sum().item())
        loss = losses[view].double().sum().item()
        total = base * voxels.item() - slope * found.item()
        assert settings[-1] * total == pytest.approx(loss, rel=1e-6)
        for gradient, expected in zip(given, gradients, strict=True):
            assert gradient is None or torch.equal(gradient, expected[view])
            assert gradient is None or gradient.count_nonzero() > 0


@covering(case=CASES, layout=LAYOUTS)
def test_planes(case: Case, layout: Any) -> None:
    """One sum for each plane along the slowest axis, the same wherever a window begins and ends."""
    tensors, settings = op_arguments(case._replace(layout=layout), DOUBLES, True)
    dim = slowest_axis(tensors[0])

    def of(begin: int, end: int, of_mask: bool = False, per_plane: bool = True) -> Tensor:
        return sums(*tensors, *settings, dim, begin, end, per_plane, of_mask, None, None)

    count = case.shape[dim]
    mask = tensors[4].expand(case.shape).double().movedim(dim, 0).flatten(1).sum(1)
    torch.testing.assert_close(of(0, count, of_mask=True), mask, rtol=1e-14, atol=0)
    for of_mask in (False, True):
        planes = of(0, count, of_mask)
        assert planes.shape == (count,)
        for begin, end in ((0, 1), (1, 3), (2, count), (count - 1, count)):
            with threads(2):
                assert torch.equal(of(begin, end, of_mask), planes[begin:end])
        total = of(0, count, of_mask, per_plane=False)
        assert total.item() == pytest.approx(planes.sum().item(), rel=1e-14)


@covering(per_plane=[False, True], both=[False, True], layout=[contiguous, transposed])
def test_opcheck_of_sums(per_plane: bool, both: bool, layout: Any) -> None:
    tensors, settings = op_arguments(CASES[1]._replace(layout=layout), FLOATS, True)
    dim = slowest_axis(tensors[0])
    given = [torch.empty_like(tensors[0].narrow(dim, 1, 4)) for _ in range(2)]
    arguments = (*tensors, *settings, dim, 1, 5, per_plane, False, given[0])
    torch.library.opcheck(sums, (*arguments, given[1] if both else None), test_utils=TESTS)


REFUSED = [
    *(({"begin": -1}, "the window must"), ({"end": 21}, "the window must")),
    *(({"end": 0}, "the window must"), ({"dim": 1}, "the window must")),
    ({"dim": 3, "end": 9, "per_plane": True}, "planes are those along the axis of the largest"),
    *(({"gradient": shape}, "must") for shape in [(2, 3, 20, 8), (2, 1, 20, 9), (3, 20, 9)]),
    ({"gradient": (2, 3, 20, 9), "of_mask": True}, "mask"),
    ({"mask": False, "of_mask": True}, "mask"),
]


@pytest.mark.parametrize(("changed", "message"), REFUSED, ids=str)
def test_unfit_arguments_are_refused(changed: dict[str, Any], message: str) -> None:
    (*tensors, mask), settings = op_arguments(CASES[0], FLOATS, True)
    mask = mask if changed.get("mask", True) else None
    gradient = torch.zeros(changed["gradient"]) if "gradient" in changed else None
    window = {"dim": 2, "begin": 0, "end": 20, "per_plane": False, "of_mask": False}
    window |= {name: value for name, value in changed.items() if name in window}
    with pytest.raises(RuntimeError, match=message):
        sums(*tensors, mask, *settings, *window.values(), gradient, None)


def test_a_reduction_or_spacing_that_is_none_is_refused() -> None:
    tensors, settings = op_arguments(CASES[0], FLOATS, False)
    for reduction in (-1, 3):
        with pytest.raises(RuntimeError, match="unknown reduction"):
            forward(*tensors, *settings, reduction, False, False, False)
    settings[5] = [1.0, 0.0, 1.0][: len(settings[5])]
    with pytest.raises(RuntimeError, match="spacing must be positive"):
        forward(*tensors, *settings, 1, False, False, False)
