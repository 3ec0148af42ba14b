# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Every option and dtype against the reference in float64, with random upstream gradients."""

from typing import Any

import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    DTYPES,
    FORMULAS,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    assert_loss_close,
    assert_same_bits,
    check_fused,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import (
    CASES,
    LARGE,
    LAYOUTS,
    SHORT,
    SMALL,
    Case,
    Layout,
    by_name,
    channels_last,
    contiguous,
    generator,
    strided,
    transposed,
)

import nec_ext


def maps_of(case: Case, wanted: bool) -> dict[str, Any]:
    if not wanted:
        return {}
    rng = generator("maps")
    return {
        "eps": transposed(0.05 + 0.2 * torch.rand(case.shape, generator=rng)),
        "target_eps": 0.05 + 0.2 * torch.rand(case.shape[2:], generator=rng),
        "mask": torch.rand(case.shape, generator=rng),
        "spacing": [0.7, 1.3, 2.5][: len(case.shape) - 2],  # of the tensor's axes, not the memory's
        "weight": 1.7,
    }


@covering(case=CASES, dtype=DTYPES, options={**FORMULAS, "wanted": WANTED, "reduction": REDUCTIONS})
def test_every_input(case: Case, dtype: torch.dtype, options: dict[str, str]) -> None:
    check_fused(*case.images(dtype), **options)


@covering(case=LARGE, dtype=DTYPES, maps=[False, True], options=FORMULAS)
def test_large_input(case: Case, dtype: torch.dtype, maps: bool, options: dict[str, Any]) -> None:
    # The gradient of a mean would be below the normal range of a half type, whoever computes it.
    check_fused(*case.images(dtype), reduction="sum", **options, **maps_of(case, maps))


@covering(
    case=SHORT,
    layout=[contiguous, transposed, channels_last, strided],
    target_layout=[contiguous, None],
    maps=[False, True],
    options={**FORMULAS, "reduction": REDUCTIONS},
)
def test_short_axes(
    case: Case, layout: Layout, target_layout: Layout | None, maps: bool, options: dict[str, Any]
) -> None:
    images = case._replace(layout=layout, target_layout=target_layout).images()
    check_fused(*images, **options, **maps_of(case, maps))


@covering(
    upstream=[1.0, 2.0, 0.3, -1.5, 0.0],
    dtype=DTYPES,
    options={"reduction": ["mean", "sum"], "wanted": WANTED},
)
def test_upstream_of_a_number(upstream: float, dtype: torch.dtype, options: dict[str, str]) -> None:
    check_fused(*SMALL[1].images(dtype), upstream, **options)


@covering(
    kind=["random", "expanded", "transposed", "with_zeros"],
    operator=OPERATORS,
    case=SMALL,
    dtype=DTYPES[:2],
)
def test_upstream_of_a_loss_map(kind: str, operator: str, case: Case, dtype: torch.dtype) -> None:
    upstream = random_upstream(case.shape)
    upstream = {
        "random": upstream,
        "expanded": upstream[:1, :1, :1].expand(case.shape),
        "transposed": transposed(upstream),
        "with_zeros": upstream * (upstream > 1),
    }[kind]
    check_fused(*case.images(dtype), upstream, reduction="none", operator=operator)


@covering(case=by_name("tiles_x_2d", "chunks_3d", "brain_3d"), dtype=DTYPES[2:])
def test_loss_scale_keeps_a_half_gradient_from_underflow(case: Case, dtype: torch.dtype) -> None:
    """As torch.amp's GradScaler does. It could not, if 1 / voxels were multiplied in before."""
    check_fused(*case.images(dtype), 2.0**16)


@covering(dtype=DTYPES, other=DTYPES, wanted=WANTED, reduction=["mean", "none"], case=SMALL)
def test_mixed_dtypes(
    dtype: torch.dtype, other: torch.dtype, wanted: str, reduction: str, case: Case
) -> None:
    check_fused(*case.images(dtype, other), wanted=wanted, reduction=reduction, target_eps=0.4)


def test_nothing_is_computed_for_images_without_gradient() -> None:
    input, target = SMALL[0].images()
    assert not nec_ext.ngf_loss(input, target).requires_grad
    input.requires_grad_()
    with torch.no_grad():
        assert not nec_ext.ngf_loss(input, target).requires_grad
    with torch.inference_mode():
        loss = nec_ext.ngf_loss(input * 2, target)
    assert not loss.requires_grad
    assert_loss_close(loss, expected_result(2 * input, target).loss)


def test_defaults() -> None:
    """Torch's default dtype is none of them."""
    images = SMALL[1].images()
    stated = {"eps": 0.15, "target_eps": 0.15, "eps_mode": "additive", "operator": "central"}
    stated |= {"spacing": 1.0, "mask": None, "weight": 1.0, "reduction": "mean"}
    expected = evaluate(nec_ext.ngf_loss, *images, -1.5, **stated)
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        assert_same_bits(evaluate(nec_ext.ngf_loss, *images, -1.5), expected)


def test_inputs_are_left_alone() -> None:
    given = (*SMALL[1].images(), torch.rand(SMALL[1].shape), 0.1 + torch.rand(SMALL[1].shape))
    before = [tensor.clone() for tensor in given]
    evaluate(nec_ext.ngf_loss, *given[:2], mask=given[2], eps=given[3])
    assert all(map(torch.equal, given, before))


@covering(
    case=[*SMALL, *LAYOUTS[:8], *SHORT, *by_name("brain_2d", "odd_3d", "tiles_x_2d")],
    dtype=DTYPES,
    maps=[False, True],
    options={**ALL_FORMULAS, "wanted": WANTED, "reduction": REDUCTIONS},
)
def test_forms(case: Case, dtype: torch.dtype, maps: bool, options: dict[str, Any]) -> None:
    check_fused(*case.images(dtype), **options, **maps_of(case, maps))


def test_the_sign_of_a_product_that_vanishes() -> None:
    input, target = SMALL[1].images()
    check_fused(1e-25 * input, 1e-25 * target, form="absolute")


@covering(
    ndim=[2, 3],
    dtype=DTYPES,
    scale=[1.0, 2.0**-80],
    options={**ALL_FORMULAS, "operator": ["central", "forward"], "form": ["absolute"]},
)
def test_perpendicular_gradients(
    ndim: int, dtype: torch.dtype, scale: float, options: dict[str, str]
) -> None:
    """On the diagonal all components of the one are equal, and those of the other sum to 0."""
    images = Case("perpendicular", (1, 1, *(7,) * ndim)).images(torch.float64)
    # No sum or difference of these is rounded, in any type.
    input, target = ((32 * image).round() / 32 for image in images)
    turns = [(0, 1, *(2 + (k + axis) % ndim for axis in range(ndim))) for k in range(ndim)]
    input, target = sum(map(input.permute, turns)), target - target.permute(turns[1])
    diagonal = torch.zeros(input.shape, dtype=torch.bool)
    diagonal[(0, 0, *(range(7),) * ndim)] = True
    if dtype in DTYPES[2:]:
        scale = 1.0
    images = (0.7 * scale * input).to(dtype), (scale * target).to(dtype)
    result = check_fused(*images, mask=diagonal, reduction="sum", **options)
    if options["eps_mode"] != "augmented":
        assert all((gradient == 0).all() for gradient in result[1:])
