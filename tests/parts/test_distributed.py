# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss of volumes that are split across processes is that of the whole volume."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import sharding
import torch
from covering import covering
from helpers import (
    EPS_MODES,
    OPERATORS,
    WANTED,
    Result,
    assert_result_close,
    expected_result,
    random_upstream,
)
from inputs import Case, channels_last, generator, noise, transposed
from ranks import Ranks
from torch import Tensor

import nec_ext

UPSTREAM = random_upstream(())
SHAPE = (1, 2, 4, 5, 6)


def maps(shape: tuple[int, ...], *names: str) -> dict[str, Tensor]:
    """Return maps that differ in every voxel."""
    rng = generator("split maps")
    return {name: 0.1 + torch.rand(shape, generator=rng) for name in names}


def check_split(
    ranks: Ranks,
    images: tuple[Tensor, Tensor],
    sizes: tuple[int, ...],
    dim: int = 2,
    wanted: str = "both",
    **options: Any,
) -> None:
    """Check that every rank has the loss of the whole images, and its slice of their gradients."""
    assert sum(sizes) == images[0].shape[dim]
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
    shape: tuple[int, ...]
    dim: int
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        return "x".join(map(str, self.shape))


SPLITS = [
    Split((1, 2, 14, 9), 2, (6, 8)),
    Split((2, 1, 7, 15), 3, (1, 9, 5)),
    Split((1, 1, 13, 7, 6), 2, (6, 1, 6)),
    Split((2, 2, 5, 12, 6), 3, (5, 7)),
    Split((1, 1, 6, 5, 17), 4, (3, 4, 10)),
]


def images_of(split: Split, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return Case("split", split.shape).images(dtype)


@covering(
    split=SPLITS,
    operator=OPERATORS,
    wanted=WANTED,
    eps_mode=EPS_MODES,
    reduction=["mean", "sum"],
    mapped=[False, True],
)
def test_whole_loss_and_slices_of_its_gradient(
    ranks: Ranks,
    split: Split,
    operator: str,
    wanted: str,
    eps_mode: str,
    reduction: str,
    mapped: bool,
) -> None:
    options = {"operator": operator, "eps_mode": eps_mode, "reduction": reduction}
    if mapped:
        options |= {
            **maps(split.shape, "eps", "mask"),
            "target_eps": 0.3,
            "spacing": [0.7, 1.3, 2.5][: len(split.shape) - 2],
            "weight": 1.7,
        }
    check_split(ranks, images_of(split), split.sizes, split.dim, wanted, **options)


@pytest.mark.parametrize(
    "sizes", [(1, 1), (1, 4), (3, 1), (2, 2), (4, 5), (1, 1, 1), (1, 1, 6), (2, 1, 1), (5, 3, 2)]
)
def test_planes_from_the_rank_after_next(ranks: Ranks, sizes: tuple[int, ...]) -> None:
    for dim in (2, 4):
        shape = [2, 1, 5, 4, 5]
        shape[dim] = sum(sizes)
        for operator in OPERATORS:
            options = maps(tuple(shape), "mask", "target_eps")
            images = noise(tuple(shape), generator("thin"))
            check_split(ranks, images, sizes, dim, operator=operator, **options)


@covering(
    split=[SPLITS[1], SPLITS[2]],
    dtypes=[
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float16),
        (torch.float16, torch.float64),  # which in a message has to come first
    ],
)
def test_dtypes(ranks: Ranks, split: Split, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    images = Case("split", split.shape).images(*dtypes)
    options = maps(split.shape, "eps", "mask")
    options["mask"] = options["mask"] > 0.5
    check_split(ranks, images, split.sizes, split.dim, **options)


@covering(split=SPLITS, layout=[transposed, channels_last])
def test_layouts(ranks: Ranks, split: Split, layout: Any) -> None:
    images = tuple(layout(image) for image in images_of(split))
    check_split(ranks, images, split.sizes, split.dim, operator="sobel")  # type: ignore[arg-type]


@pytest.mark.parametrize("split", [SPLITS[0], SPLITS[4]], ids=lambda split: split.name)
def test_maps_of_fewer_axes(ranks: Ranks, split: Split) -> None:
    """A map that does not vary along the axis is the same on every rank."""
    shape = list(split.shape)
    shape[split.dim] = 1
    spread = [1] * len(shape)
    spread[split.dim] = split.shape[split.dim]
    first = maps(tuple(shape), "eps")["eps"]
    options = {"eps": first[0, 0], "mask": maps(tuple(spread), "mask")["mask"][0, 0]}
    for name, value in options.items():  # part_of() takes tensors of all axes
        options[name] = value[None, None]
    options["target_eps"] = torch.rand(split.shape[0], 1, *[1] * (len(shape) - 2)) + 0.1
    check_split(ranks, images_of(split), split.sizes, split.dim, **options)


def test_without_a_check(ranks: Ranks) -> None:
    for split in SPLITS:
        if min(split.sizes) >= 2:
            options = maps(split.shape, "eps", "mask")
            check_split(ranks, images_of(split), split.sizes, split.dim, check=False, **options)
    alone = Split((1, 2, 1, 7, 6), 2, (1,))  # nobody needs two planes
    check_split(ranks, images_of(alone), alone.sizes, check=False)


def test_masks_of_zeros_and_small_weights(ranks: Ranks) -> None:
    """Masks are 0 on one rank, and on all: there the loss and its gradient are 0."""
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
    found = ranks.run(sharding.with_default_device, SHAPE)
    image = torch.linspace(-1, 1, 240).view(SHAPE)
    assert found == ranks.run(sharding.call_with, [(image, image, {})] * 3)


def test_ranks_that_want_other_gradients(ranks: Ranks) -> None:
    images = images_of(SPLITS[2])
    expected = expected_result(*images, UPSTREAM)
    found = ranks.run(sharding.some_gradients, images, UPSTREAM)
    assert all(torch.equal(result.loss, found[0].loss) for result in found)
    assert_result_close(found[0], Result(expected.loss, expected.grad_input[:, :, :4], None))
    assert_result_close(found[1], Result(expected.loss, None, None))
    assert_result_close(found[2], Result(expected.loss, None, expected.grad_target[:, :, 8:]))


def test_data_parallel_networks(ranks: Ranks) -> None:
    for whole, split in ranks.run(sharding.trained, images_of(SPLITS[2]), SPLITS[2].sizes):
        assert abs(whole) > 1e-3
        assert split == pytest.approx(whole, rel=1e-12)


# -------------------------------------------------------------------------------------------------
# What it costs
# -------------------------------------------------------------------------------------------------


def test_one_exchange_and_one_sum(ranks: Ranks) -> None:
    shape = (1, 2, 8, 6, 5)
    messages = 2 * (2 * 6 * 5) * 2 * 4  # two planes of two channels of two float32 images
    for check in (False, True):
        records = {"all_gather": [3 * 1024]} if check else {}
        for rank, calls in enumerate(ranks.run(sharding.traffic, shape, {"check": check})):
            neighbours = 2 if rank == 1 else 1
            sent = {"batch_isend_irecv": [0], "messages": [messages] * neighbours}
            assert calls == {"forward": {**sent, "all_reduce": [2 * 8], **records}, "backward": {}}


def test_masks_travel_with_the_images(ranks: Ranks) -> None:
    shape = (1, 1, 8, 6, 5)
    found = ranks.run(sharding.traffic, shape, {"mask": torch.ones(shape, dtype=torch.bool)})
    assert found[0]["forward"]["messages"] == [2 * 30 * (4 + 4 + 1)]


@pytest.mark.parametrize("wanted", [*WANTED, "neither"])
def test_memory_above_the_images_is_their_gradients(ranks: Ranks, wanted: str) -> None:
    shape = (1, 1, 96, 64, 64)
    plane = 64 * 64 * 4
    gradients = {"both": 2, "neither": 0}.get(wanted, 1) * 96 * plane
    for rank, (peak, level) in enumerate(ranks.run(sharding.memory, shape, wanted, {})):
        # 2 planes of 5 tensors received from each side, and a slab of 6.
        planes = (2 if rank == 1 else 1) * 5 * 2 + 5 * 6
        assert gradients <= level
        assert peak <= gradients + planes * plane + 64 * 1024
        assert peak < gradients + 96 * plane  # no copy of any of the five


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_gradients_again(ranks: Ranks, dtype: torch.dtype) -> None:
    """Gradients are right one by one and at once, before and after; second order is refused."""
    upstreams = torch.tensor([1.0, -3.0, 0.5])
    arguments = (1, 1, 7, 6, 5), dtype, upstreams
    for first, single, again, error in ranks.run(sharding.gradients_again, *arguments):
        assert single.abs().amax((1, 2, 3, 4, 5)).min() > 0
        for batched in (first, again):
            assert batched.dtype == dtype
            torch.testing.assert_close(batched, single)
        if dtype == torch.float32:  # a half is rounded at every scale
            scaled = torch.stack([single[0] * upstream for upstream in upstreams])
            torch.testing.assert_close(single, scaled, rtol=1e-6, atol=1e-9)
        assert "cannot be differentiated" in error


def test_nothing_is_held_after_backward(ranks: Ranks) -> None:
    for times in (1, 2):
        assert ranks.run(sharding.held_after_backward, SHAPE, times) == [[False] * 3] * 3


def test_is_found_without_an_import() -> None:
    assert nec_ext.distributed.ngf_loss.__module__ == "nec_ext.distributed"
    assert not hasattr(nec_ext, "distribution")
