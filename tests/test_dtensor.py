# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""DTensors bring the group and the axis of a split loss along."""

from __future__ import annotations

from typing import Any

import pytest
import sharding
import torch
from helpers import Result, assert_result_close, expected_result
from inputs import Case
from ranks import Ranks
from test_distributed import maps


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("mesh", "dims"),
    [
        ((3,), (None,)),
        ((3,), (0,)),
        ((3,), (1,)),
        ((3,), (2,)),
        ((3,), (4,)),
        ((1, 3), (0, 3)),
        ((3, 1), (0, 2)),
        ((3, 1), (None, 2)),
    ],
    ids=str,
)
def test_distributed_tensors(
    ranks: Ranks,
    mesh: tuple[int, ...],
    dims: tuple[int | None, ...],
    reduction: str,
    masked: bool,
) -> None:
    shape = (5, 3, 5, 6, 7)
    options: dict[str, Any] = {"reduction": reduction, "spacing": (0.5, 1.0, 2.0)}
    if masked:
        options |= maps(shape, "mask", "eps")
    check_distributed(ranks, shape, mesh, dims, options, plain=False)


def check_distributed(
    ranks: Ranks,
    shape: tuple[int, ...],
    mesh: tuple[int, ...],
    dims: tuple[int | None, ...],
    options: dict[str, Any],
    plain: bool,
) -> None:
    images = Case("dtensor", shape).images(torch.float64)
    expected = expected_result(*images, 1.0, **options)
    for loss, *gradients, kept in ranks.run(
        sharding.distributed_tensors, images, mesh, dims, options, plain
    ):
        found = Result(torch.tensor(loss, dtype=torch.float64), *gradients)
        assert_result_close(found, expected)
        assert kept or plain


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dims", [(None,), (0,), (1,), (2,)], ids=str)
def test_plain_loss_of_distributed_tensors(
    ranks: Ranks, dims: tuple[int | None, ...], reduction: str
) -> None:
    for shape in ((5, 3, 6, 5), (4, 4, 6, 5)):  # in the second a shard would be empty
        check_distributed(ranks, shape, (3,), dims, {"reduction": reduction}, plain=True)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("group", "group must be left out"),
        ("target", "target must be a DTensor"),
        ("placements", "target must be placed as input is"),
        ("none", "reduction must be 'mean' or 'sum'"),
        ("empty", "input must not be empty"),
    ],
)
def test_wrong_distributed_tensors(ranks: Ranks, kind: str, sentence: str) -> None:
    for error in ranks.errors(sharding.wrong_distributed_tensor, kind):
        assert sentence in error
