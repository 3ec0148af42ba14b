# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""DTensors bring the group and the axis of a split loss along."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sharding
import torch
from helpers import Result, assert_result_close, expected_result
from inputs import Case
from sharding import Ranks
from test_distributed import maps

SHAPE = (5, 3, 3, 6, 7)  # one plane for each of three ranks


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    with closing(Ranks(4, tmp_path_factory.mktemp("four"))) as ranks:
        yield ranks


def check_distributed(
    ranks: Ranks, shape: Any, mesh: Any, dims: Any, plain: bool = False, **options: Any
) -> None:
    images = Case("dtensor", shape).images(torch.float64)
    expected = expected_result(*images, 1.0, **options)
    arguments = images, mesh, dims, options, plain
    for loss, *gradients, kept in ranks.run(sharding.distributed_tensors, *arguments):
        found = Result(torch.tensor(loss, dtype=torch.float64), *gradients)
        assert_result_close(found, expected)
        assert kept or plain


@pytest.mark.parametrize(
    ("mesh", "dims", "masked"),
    [
        ((3,), (None,), True),
        ((3,), (0,), True),
        ((3,), (2,), False),
        ((3,), (4,), True),
        ((1, 3), (0, 3), True),
        ((3, 1), (None, 2), False),
    ],
    ids=str,
)
def test_distributed_tensors(ranks: Ranks, mesh: Any, dims: Any, masked: bool) -> None:
    options = maps(SHAPE, "mask", "eps") if masked else {}
    options |= {"reduction": ["mean", "sum"][len(mesh) - 1], "spacing": (0.5, 1.0, 2.0)}
    check_distributed(ranks, SHAPE, mesh, dims, **options)


@pytest.mark.parametrize("dims", [(0, 2), (3, 1), (0, 0), (2, None)], ids=str)
def test_two_axes_of_a_mesh(four: Ranks, dims: Any) -> None:
    for options in ({}, maps(SHAPE, "mask", "target_eps")):
        check_distributed(four, SHAPE, (2, 2), dims, **options)


def test_all_ranks_of_a_mesh_hear_what_is_wrong(four: Ranks) -> None:
    images = Case("dtensor", (1, 1, 4, 5, 6)).images()
    errors = four.errors(sharding.distributed_tensors, images, (2, 2), (4, 2), {}, False)
    assert errors == ["ValueError: input must be split along one spatial axis, got [4, 2]"] * 4
    for kind, sentence in (
        ("option", "operator must be one of"),
        ("values", "mask must not be negative"),
        # Ranks 2 and 3 see it in the second exchange of records, and have to tell 0 and 1.
        ("samples", "the shape of input along the other axes must be the same on every rank"),
    ):
        for error in four.errors(sharding.wrong_on_two_axes, kind):
            assert error.startswith("ValueError: ") and sentence in error


def test_a_rank_that_its_mesh_lacks(ranks: Ranks) -> None:
    *others, lacking = ranks.errors(sharding.on_a_mesh_of_two)
    assert others == [None, None]
    assert lacking.startswith("ValueError: input must be on a mesh that has this rank, got ")


@pytest.mark.parametrize("dim", [None, 0, 2])
def test_plain_loss_of_distributed_tensors(ranks: Ranks, dim: int | None) -> None:
    for shape in ((5, 3, 6, 5), (4, 4, 6, 5)):  # in the second a shard would be empty
        for reduction in ("mean", "sum"):
            check_distributed(ranks, shape, (3,), (dim,), plain=True, reduction=reduction)


def test_wrong_distributed_tensors(ranks: Ranks) -> None:
    ranks.run(sharding.refuse_distributed_tensors)
