# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss of volumes that are split across processes is that of the whole volume."""

from typing import Any, NamedTuple

import pytest
import sharding
import torch
from covering import covering
from helpers import (
    FORMULAS,
    OPERATORS,
    WANTED,
    Result,
    assert_result_close,
    expected_result,
    random_upstream,
)
from inputs import (
    Case,
    Layout,
    Pair,
    Shape,
    channels_last,
    contiguous,
    generator,
    noise,
    transposed,
)
from sharding import Ranks
from torch import Tensor

UPSTREAM = random_upstream(())
SHAPE = (1, 2, 4, 5, 6)


def maps(shape: Shape, *names: str) -> dict[str, Tensor]:
    rng = generator("split maps")
    return {name: 0.1 + torch.rand(shape, generator=rng) for name in names}


def check_split(
    ranks: Ranks, images: Pair, sizes: Shape, dim: int = 2, wanted: str = "both", **options: Any
) -> None:
    """Check that every rank has the loss of the whole images, and its slice of their gradients."""
    found = ranks.run(sharding.split_loss, images, sizes, dim, UPSTREAM, wanted, options)
    assert found[len(sizes) :] == [None] * (3 - len(sizes))
    results: list[Result] = found[: len(sizes)]
    assert all(torch.equal(result.loss, results[0].loss) for result in results)
    has_double = torch.float64 in (images[0].dtype, images[1].dtype)
    for result, size in zip(results, sizes, strict=True):
        assert result.loss.dtype == (torch.float64 if has_double else torch.float32)
        for gradient, image in zip(result[1:], images, strict=True):
            assert gradient is None or gradient.dtype == image.dtype
            assert gradient is None or gradient.shape[dim] == size
    joined = [
        None if gradients[0] is None else torch.cat(gradients, dim)
        for gradients in list(zip(*results, strict=True))[1:]
    ]
    options.pop("check", None)
    expected = expected_result(*images, UPSTREAM, wanted, **options)
    assert_result_close(Result(results[0].loss, *joined), expected)


class Split(NamedTuple):
    shape: Shape
    dim: int
    sizes: Shape


SPLITS = [
    Split((1, 2, 14, 9), 2, (6, 8)),
    Split((2, 1, 7, 15), 3, (1, 9, 5)),
    Split((1, 1, 13, 7, 6), 2, (6, 1, 6)),
    Split((2, 2, 5, 12, 6), 3, (5, 7)),
    Split((1, 1, 6, 5, 17), 4, (3, 4, 10)),
]


def images_of(split: Split, layout: Layout = contiguous) -> Pair:
    return Case("split", split.shape, layout=layout).images(torch.float64)


@covering(
    split=SPLITS,
    layout=[contiguous, transposed, channels_last],
    options={**FORMULAS, "reduction": ["mean", "sum"]},
    wanted=WANTED,
    mapped=[False, True],
)
def test_whole_loss_and_slices_of_its_gradient(
    ranks: Ranks, split: Split, layout: Layout, options: dict[str, Any], wanted: str, mapped: bool
) -> None:
    if mapped:
        options = {**options, **maps(split.shape, "eps", "mask"), "target_eps": 0.3, "weight": 1.7}
        options["spacing"] = [0.7, 1.3, 2.5][: len(split.shape) - 2]
    check_split(ranks, images_of(split, layout), split.sizes, split.dim, wanted, **options)


@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 4), (3, 1), (2, 2), (4, 5), (1, 1, 1), (1, 1, 6), (2, 1, 1), (5, 3, 2)]
)
def test_planes_from_the_rank_after_next(ranks: Ranks, sizes: Shape) -> None:
    for dim in (2, 4):
        shape = [2, 1, 5, 4, 5]
        shape[dim] = sum(sizes)
        for operator in OPERATORS:
            options = maps(tuple(shape), "mask", "target_eps")
            images = noise(tuple(shape), generator("thin"))
            check_split(ranks, images, sizes, dim, operator=operator, **options)


def test_dtypes(ranks: Ranks) -> None:
    for split, *dtypes in (
        (SPLITS[1], torch.float16, torch.float16),
        (SPLITS[2], torch.bfloat16, torch.float32),
        (SPLITS[2], torch.float16, torch.float64),  # which in a message has to come first
    ):
        images = Case("split", split.shape).images(*dtypes)
        options = maps(split.shape, "eps", "mask")
        options["mask"] = options["mask"] > 0.5
        check_split(ranks, images, split.sizes, split.dim, **options)


def test_maps_of_fewer_axes(ranks: Ranks) -> None:
    """A map that does not vary along the axis is the same on every rank."""
    split = SPLITS[4]
    options = {
        **maps((1, 1, 6, 5, 1), "eps"),
        **maps((1, 1, 1, 1, 17), "mask"),
        **maps((1, 1, 1, 1, 1), "target_eps"),
    }
    check_split(ranks, images_of(split), split.sizes, split.dim, **options)


def test_without_a_check(ranks: Ranks) -> None:
    for split in SPLITS:
        if min(split.sizes) >= 2:
            options = maps(split.shape, "eps", "mask")
            check_split(ranks, images_of(split), split.sizes, split.dim, check=False, **options)
    alone = noise((1, 2, 1, 7, 6), generator("alone"))
    check_split(ranks, alone, (1,), check=False)  # nobody needs two planes


def test_masks_of_zeros_and_small_weights(ranks: Ranks) -> None:
    split = SPLITS[2]
    mask = maps(split.shape, "mask")["mask"]
    mask[:, :, :7] = 0
    check_split(ranks, images_of(split), split.sizes, mask=mask)
    check_split(ranks, images_of(split), split.sizes, mask=1e-6 * mask)  # with a sum below 1
    zeros = torch.zeros(split.shape)
    arguments = images_of(split), split.sizes, 2, UPSTREAM, "both", {"mask": zeros}
    for result in ranks.run(sharding.split_loss, *arguments):
        assert all(tensor.count_nonzero() == 0 for tensor in result.tensors)


def test_nan_shows_on_every_rank(ranks: Ranks) -> None:
    images = images_of(SPLITS[2])
    images[0][0, 0, 0, 0, 0] = torch.nan
    for options in ({}, maps(SPLITS[2].shape, "mask")):  # a map that is good is not to blame
        found = ranks.run(sharding.split_loss, images, (6, 1, 6), 2, UPSTREAM, "input", options)
        assert all(result.loss.isnan() for result in found)


def test_a_default_device(ranks: Ranks) -> None:
    images = [(*noise(SHAPE, generator("default")), {})] * 3
    assert ranks.run(sharding.call_with, images, "meta") == ranks.run(sharding.call_with, images)


def test_ranks_that_want_other_gradients(ranks: Ranks) -> None:
    images, wanted = images_of(SPLITS[2]), ("input", "both", "target")
    expected = expected_result(*images, UPSTREAM)
    found = ranks.run(sharding.split_loss, images, (4, 4, 5), 2, UPSTREAM, wanted, {})
    assert_result_close(found[0], Result(expected.loss, expected.grad_input[:, :, :4], None))
    assert_result_close(found[1], Result(expected.loss, *(g[:, :, 4:8] for g in expected[1:])))
    assert_result_close(found[2], Result(expected.loss, None, expected.grad_target[:, :, 8:]))


@pytest.mark.parametrize("options", [{}, {"check": False}, {"mask": torch.ones(SHAPE) > 0}])
def test_one_exchange_and_one_sum(ranks: Ranks, options: dict[str, Any]) -> None:
    """Masks travel with the images."""
    voxel = 4 + 4 + ("mask" in options)  # bytes
    records = {"all_gather": [3 * 1024]} if options.get("check", True) else {}
    for rank, calls in enumerate(ranks.run(sharding.traffic, SHAPE, options)):
        messages = [2 * (2 * 5 * 6) * voxel] * (2 if rank == 1 else 1)  # two planes, two channels
        sent = {"batch_isend_irecv": [0], "messages": messages}
        assert calls == {"forward": {**sent, "all_reduce": [2 * 8], **records}, "backward": {}}


@pytest.mark.parametrize("wanted", [*WANTED, "neither"])
def test_memory_above_the_images_is_their_gradients(ranks: Ranks, wanted: str) -> None:
    shape = (1, 1, 96, 64, 64)
    plane = 64 * 64 * 4
    gradients = {"both": 2, "neither": 0}.get(wanted, 1) * 96 * plane
    for rank, (peak, level) in enumerate(ranks.run(sharding.memory, shape, wanted)):
        # 2 planes of 5 tensors received from each side, and a slab of 6.
        planes = (2 if rank == 1 else 1) * 5 * 2 + 5 * 6
        assert gradients <= level
        assert peak <= gradients + planes * plane + 64 * 1024
        assert peak < gradients + 96 * plane  # no copy of any of the five


def test_gradients_again(ranks: Ranks) -> None:
    ranks.run(sharding.check_gradients_again)


def test_nothing_is_held_after_backward(ranks: Ranks) -> None:
    for times in (1, 2):
        ranks.run(sharding.check_that_nothing_is_held, SHAPE, times)
