# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Every option of the loss against the reference in float64, with random upstream gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    DTYPES,
    FORMULAS,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    assert_result_close,
    assert_same_bits,
    check_fused,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import (
    CASES,
    LARGE,
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
from torch import Tensor

import nec_ext

SINGLE_AND_DOUBLE = DTYPES[:2]


def spacing_of(case: Case) -> list[float]:
    return [0.7, 1.3, 2.5][: len(case.shape) - 2]


@covering(
    case=CASES,
    dtype=DTYPES,
    options={**FORMULAS, "wanted": WANTED, "reduction": REDUCTIONS},
)
def test_every_input(case: Case, dtype: torch.dtype, options: dict[str, str]) -> None:
    check_fused(*case.images(dtype), **options)


# The gradient of a mean would be below the normal range of a half type, whoever computes it.
@covering(
    case=LARGE,
    dtype=DTYPES,
    maps=[False, True],
    options=FORMULAS,
)
def test_large_input(case: Case, dtype: torch.dtype, maps: bool, options: dict[str, Any]) -> None:
    if maps:
        rng = generator("maps")
        options = options | {
            "eps": transposed(0.05 + 0.2 * torch.rand(case.shape, generator=rng)),
            "target_eps": 0.05 + 0.2 * torch.rand(case.shape[-1:], generator=rng),
            "mask": torch.rand(case.shape, generator=rng) > 0.3,
            "spacing": spacing_of(case),
        }
    check_fused(*case.images(dtype), reduction="sum", **options)


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
    shape = case.shape
    if maps:
        rng = generator(f"maps of {case.name}")
        options = options | {
            "spacing": spacing_of(case),
            "mask": torch.rand(shape, generator=rng),
            "eps": 0.1 + torch.rand((shape[0], *(1 for _ in shape[1:])), generator=rng),
            "target_eps": 0.1 + torch.rand(shape[2:], generator=rng),
        }
    images = case._replace(layout=layout, target_layout=target_layout).images()
    check_fused(*images, **options)


# --- eps ------------------------------------------------------------------------------------------


def eps_values(case: Case, kind: str) -> float | Tensor:
    """A scalar, or positive random numbers that vary over the named axes."""
    if kind == "scalar":
        return 0.07
    batch, channels, *space = case.shape
    shape = {
        "0-dim": (),
        "per_sample": (batch, *(1,) * (len(space) + 1)),
        "per_channel": (channels, *(1,) * len(space)),  # fewer axes than the images have
        "per_voxel": case.shape,
        "per_row": (1, 1, *space[:-1], 1),
        "per_x": (space[-1],),
    }[kind]
    return 0.05 + 0.3 * torch.rand(shape, generator=generator(kind))


EPS_KINDS = ("scalar", "0-dim", "per_sample", "per_channel", "per_voxel", "per_row", "per_x")


@covering(
    kind=EPS_KINDS,
    target_kind=[None, *EPS_KINDS],
    case=SMALL,
    dtype=SINGLE_AND_DOUBLE,
    options={**FORMULAS, "wanted": WANTED},
)
def test_eps(
    kind: str, target_kind: str | None, case: Case, dtype: torch.dtype, options: dict[str, str]
) -> None:
    target_eps = None if target_kind is None else 2 * eps_values(case, target_kind)
    check_fused(*case.images(dtype), eps=eps_values(case, kind), target_eps=target_eps, **options)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8], ids=str
)
def test_eps_dtype(dtype: torch.dtype) -> None:
    case = SMALL[1]
    eps = (1 + 3 * torch.rand(case.shape, generator=generator("eps"))).to(dtype)
    check_fused(*case.images(), eps=eps)


# --- spacing, which follows the axes of the tensor ------------------------------------------------


@covering(
    case=[
        *SMALL,
        *by_name("transposed_2d", "transposed_3d", "two_layouts_3d", "channels_last_3d"),
    ],
    kind=["float", "int", "list", "tuple"],
    dtype=SINGLE_AND_DOUBLE,
    options=FORMULAS,
)
def test_spacing(case: Case, kind: str, dtype: torch.dtype, options: dict[str, str]) -> None:
    per_axis = spacing_of(case)
    spacing: Any = {"float": 1.7, "int": 2, "list": per_axis, "tuple": tuple(per_axis)}[kind]
    check_fused(*case.images(dtype), spacing=spacing, **options)


# --- mask -----------------------------------------------------------------------------------------


def mask_values(case: Case, kind: str) -> Tensor:
    batch, channels, *space = case.shape
    ones = (1,) * len(space)
    rng = generator(kind)
    real = torch.rand(case.shape, generator=rng)
    return {
        "bool": real > 0.4,
        "float32": real,
        "float64": real.double(),
        "float16": real.half(),
        "bfloat16": real.bfloat16(),
        "uint8": (4 * real).byte(),
        "int64": (4 * real).long(),
        "int32": (400 * real).int(),
        "one_channel": real[:, :1] > 0.4,
        "one_sample": real[:1],
        "no_batch": real[0],
        "space_only": real[0, 0] > 0.4,
        "per_image": torch.rand((batch, channels, *ones), generator=rng),
        "per_x": real[(0,) * (real.dim() - 1)],
        "0-dim": torch.tensor(0.3),
        "transposed": transposed(real),
        "channels_last": channels_last(real),
        "expanded": real[:1, :1].expand(case.shape),
        "mostly_zero": real > 0.95,
    }[kind]


MASK_KINDS = (
    *("bool", "float32", "float64", "float16", "bfloat16", "uint8", "int64", "int32"),
    *("one_channel", "one_sample", "no_batch", "space_only", "per_image", "per_x", "0-dim"),
    *("transposed", "channels_last", "expanded", "mostly_zero"),
)


@covering(
    kind=MASK_KINDS,
    case=SMALL,
    dtype=SINGLE_AND_DOUBLE,
    options={**FORMULAS, "reduction": REDUCTIONS},
)
def test_mask(kind: str, case: Case, dtype: torch.dtype, options: dict[str, str]) -> None:
    check_fused(*case.images(dtype), mask=mask_values(case, kind), **options)


# --- weight and upstream --------------------------------------------------------------------------


@covering(
    masked=[False, True],
    case=SMALL,
    dtype=SINGLE_AND_DOUBLE,
    options={"weight": [1, 3.0, -2.5, 1e-3, 0.0], "reduction": REDUCTIONS, "wanted": WANTED},
)
def test_weight(masked: bool, case: Case, dtype: torch.dtype, options: dict[str, Any]) -> None:
    mask = mask_values(case, "float32") if masked else None
    check_fused(*case.images(dtype), mask=mask, **options)


@covering(
    kind=["random", "expanded", "transposed", "with_zeros"],
    operator=OPERATORS,
    case=SMALL,
    dtype=SINGLE_AND_DOUBLE,
)
def test_upstream_of_a_loss_map(kind: str, operator: str, case: Case, dtype: torch.dtype) -> None:
    upstream = random_upstream(case.shape)
    upstream = {
        "random": upstream,
        "expanded": upstream[:1, :1, :1].expand(case.shape),
        "transposed": transposed(upstream),
        "with_zeros": upstream * (upstream > 1),
    }[kind]
    problem = (*case.images(dtype), upstream)
    options = {"reduction": "none", "operator": operator}
    fused = evaluate(nec_ext.ngf_loss, *problem, **options)
    assert_result_close(fused, expected_result(*problem, **options))


# --- the call as such -----------------------------------------------------------------------------


def test_defaults() -> None:
    images = SMALL[1].images()
    stated = {"eps": 0.15, "target_eps": 0.15, "eps_mode": "additive", "operator": "central"}
    stated |= {"spacing": 1.0, "mask": None, "weight": 1.0, "reduction": "mean"}
    assert_same_bits(
        evaluate(nec_ext.ngf_loss, *images), evaluate(nec_ext.ngf_loss, *images, **stated)
    )


def test_default_dtype_does_not_matter() -> None:
    images = SMALL[1].images()
    expected = evaluate(nec_ext.ngf_loss, *images, -1.5)
    torch.set_default_dtype(torch.float64)
    try:
        actual = evaluate(nec_ext.ngf_loss, *images, -1.5)
    finally:
        torch.set_default_dtype(torch.float32)
    assert actual.loss.dtype == torch.float32
    assert_same_bits(actual, expected)


def test_inputs_are_left_alone() -> None:
    given = (*SMALL[1].images(), torch.rand(SMALL[1].shape), 0.1 + torch.rand(SMALL[1].shape))
    before = [tensor.clone() for tensor in given]
    evaluate(nec_ext.ngf_loss, *given[:2], mask=given[2], eps=given[3])
    assert all(map(torch.equal, given, before))
