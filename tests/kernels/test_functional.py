# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Every option of the loss against the reference in float64, with random upstream gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import (
    DTYPES,
    EPS_MODES,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    assert_gradient_close,
    assert_loss_close,
    assert_same_bits,
    check_fused,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import CASES, LARGE, SMALL, Case, by_name, channels_last, generator, transposed
from torch import Tensor

import nec_ext

operators = pytest.mark.parametrize("operator", OPERATORS)
modes = pytest.mark.parametrize("eps_mode", EPS_MODES)
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)
small = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
wide_and_not = pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@modes
@operators
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_input(case: Case, operator: str, eps_mode: str, dtype: torch.dtype) -> None:
    check_fused(*case.images(dtype), operator=operator, eps_mode=eps_mode)


@modes
@operators
@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)
def test_large_input(case: Case, operator: str, eps_mode: str) -> None:
    check_fused(*case.images(), operator=operator, eps_mode=eps_mode)


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


@wide_and_not
@modes
@pytest.mark.parametrize("target_kind", [None, *EPS_KINDS])
@pytest.mark.parametrize("kind", EPS_KINDS)
@small
def test_eps(
    case: Case, kind: str, target_kind: str | None, eps_mode: str, dtype: torch.dtype
) -> None:
    target_eps = None if target_kind is None else 2 * eps_values(case, target_kind)
    check_fused(
        *case.images(dtype), eps=eps_values(case, kind), target_eps=target_eps, eps_mode=eps_mode
    )


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8], ids=str
)
@small
def test_eps_dtype(case: Case, dtype: torch.dtype) -> None:
    eps = (1 + 3 * torch.rand(case.shape, generator=generator("eps"))).to(dtype)
    check_fused(*case.images(), eps=eps)


@pytest.mark.parametrize(
    "case", by_name("tiles_x_3d", "tiles_y_3d", "tiles_x_2d"), ids=lambda case: case.name
)
def test_maps_across_tiles(case: Case) -> None:
    rng = generator("maps")
    check_fused(
        *case.images(),
        eps=transposed(0.05 + 0.2 * torch.rand(case.shape, generator=rng)),
        target_eps=0.05 + 0.2 * torch.rand(case.shape[-1:], generator=rng),
        mask=torch.rand(case.shape, generator=rng) > 0.3,
        spacing=[0.5 + k for k in range(len(case.shape) - 2)],
        operator="sobel",
    )


# --- spacing --------------------------------------------------------------------------------------


@wide_and_not
@modes
@operators
@pytest.mark.parametrize("kind", ["float", "int", "list", "tuple"])
@small
def test_spacing(case: Case, kind: str, operator: str, eps_mode: str, dtype: torch.dtype) -> None:
    per_axis = [0.7, 1.3, 2.5][: len(case.shape) - 2]
    spacing: Any = {"float": 1.7, "int": 2, "list": per_axis, "tuple": tuple(per_axis)}[kind]
    check_fused(*case.images(dtype), spacing=spacing, operator=operator, eps_mode=eps_mode)


@pytest.mark.parametrize(
    "name", ["transposed_2d", "transposed_3d", "two_layouts_3d", "channels_last_3d"]
)
def test_spacing_follows_the_axes_of_the_tensor(name: str) -> None:
    (case,) = by_name(name)
    check_fused(*case.images(), spacing=[0.7, 1.3, 2.5][: len(case.shape) - 2])


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


@wide_and_not
@reductions
@pytest.mark.parametrize("kind", MASK_KINDS)
@small
def test_mask(case: Case, kind: str, reduction: str, dtype: torch.dtype) -> None:
    check_fused(*case.images(dtype), mask=mask_values(case, kind), reduction=reduction)


@modes
@operators
@small
def test_mask_in_every_kernel(case: Case, operator: str, eps_mode: str) -> None:
    check_fused(
        *case.images(), mask=mask_values(case, "float32"), operator=operator, eps_mode=eps_mode
    )


def test_mean_divides_by_the_sum_of_the_broadcast_mask() -> None:
    input, target = SMALL[0].images(torch.float64)
    mask = mask_values(SMALL[0], "space_only")
    per_voxel = nec_ext.ngf_loss(input, target, reduction="none")
    loss = nec_ext.ngf_loss(input, target, mask=mask)
    assert_loss_close(loss, per_voxel[mask.expand_as(per_voxel)].mean())


# --- reduction, weight, upstream ------------------------------------------------------------------


@wide_and_not
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("weight", [1, 3.0, -2.5, 1e-3, 0.0])
@reductions
@pytest.mark.parametrize("masked", [False, True])
@small
def test_weight(
    case: Case, masked: bool, reduction: str, weight: float, wanted: str, dtype: torch.dtype
) -> None:
    mask = mask_values(case, "float32") if masked else None
    images = case.images(dtype)
    check_fused(*images, mask=mask, reduction=reduction, weight=weight, wanted=wanted)


@small
def test_weight_multiplies_the_loss(case: Case) -> None:
    images = case.images(torch.float64)
    weighted = evaluate(nec_ext.ngf_loss, *images, 1.0, weight=2.0)
    assert_same_bits(
        weighted,
        evaluate(nec_ext.ngf_loss, *images, 2.0)._replace(loss=2 * nec_ext.ngf_loss(*images)),
    )


@wide_and_not
@operators
@pytest.mark.parametrize("kind", ["random", "expanded", "transposed", "with_zeros"])
@small
def test_upstream_of_a_loss_map(case: Case, kind: str, operator: str, dtype: torch.dtype) -> None:
    upstream = random_upstream(case.shape)
    upstream = {
        "random": upstream,
        "expanded": upstream[:1, :1, :1].expand(case.shape),
        "transposed": transposed(upstream),
        "with_zeros": upstream * (upstream > 1),
    }[kind]
    images = case.images(dtype)
    fused = evaluate(nec_ext.ngf_loss, *images, upstream, reduction="none", operator=operator)
    expected = expected_result(*images, upstream, reduction="none", operator=operator)
    assert_gradient_close(fused.grad_input, expected.grad_input)
    assert_gradient_close(fused.grad_target, expected.grad_target)


@small
def test_reductions_agree(case: Case) -> None:
    images = case.images(torch.float64)
    per_voxel = evaluate(nec_ext.ngf_loss, *images, 1.0, reduction="none")
    summed = evaluate(nec_ext.ngf_loss, *images, 1.0, reduction="sum")
    mean = evaluate(nec_ext.ngf_loss, *images, per_voxel.loss.numel(), reduction="mean")
    assert per_voxel.loss.shape == case.shape
    assert_loss_close(summed.loss, per_voxel.loss.sum())
    assert_loss_close(mean.loss, per_voxel.loss.mean())
    for one, other, third in zip(per_voxel[1:], summed[1:], mean[1:], strict=True):
        assert_gradient_close(one, other)
        assert_gradient_close(third, other)


# --- the call as such -----------------------------------------------------------------------------


def test_defaults() -> None:
    images = SMALL[1].images()
    stated = {
        "eps": 0.15,
        "target_eps": 0.15,
        "eps_mode": "additive",
        "operator": "central",
        "spacing": 1.0,
    }
    stated |= {"mask": None, "weight": 1.0, "reduction": "mean"}
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
    input, target = SMALL[1].images()
    mask, eps = torch.rand(SMALL[1].shape), 0.1 + torch.rand(SMALL[1].shape)
    before = [tensor.clone() for tensor in (input, target, mask, eps)]
    evaluate(nec_ext.ngf_loss, input, target, mask=mask, eps=eps)
    assert all(torch.equal(*pair) for pair in zip((input, target, mask, eps), before, strict=True))
