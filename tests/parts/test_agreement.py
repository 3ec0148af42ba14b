# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What ranks tell each other, and over which backend."""

from __future__ import annotations

import json
import re

import pytest
import sharding
import torch
from ranks import Ranks

from nec_ext._agreement import (
    MESSAGE_LENGTH,
    RECORD_BYTES,
    _disagreement,
    check_backend,
    describe,
    record_device,
)
from nec_ext._arguments import Options

GLOO = {"cpu": "gloo", "cuda": "gloo"}  # as of the backend "gloo"
NCCL = {"cuda": "nccl"}
BOTH = {"cuda": "nccl", "cpu": "gloo"}
CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def test_a_record_holds_the_longest_description() -> None:
    """Of numbers with all digits, maps of the longest dtype and long axes."""
    image = torch.empty((), dtype=torch.bfloat16).expand(1000, 1000, 1000, 1000, 9 * 10**6)
    third = 1 / 3e-200
    o = Options(image, image, "quadrature", "central", (third,) * 3, image, -third, "mean")
    assert len(json.dumps(describe([image] * 5, o, 2))) <= RECORD_BYTES
    assert len(json.dumps({"error": '"' * MESSAGE_LENGTH})) <= RECORD_BYTES


def test_devices_of_different_types() -> None:
    image = torch.empty(1, 1, 4, 4)
    tensors = [[image.to(device)] * 2 + [None] * 3 for device in ("cpu", "meta")]
    error = _disagreement([describe(own, Options(), 2) for own in tensors])
    assert (
        str(error) == "the device must be the same on every rank: rank 0 has cpu, rank 1 has meta"
    )


@pytest.mark.parametrize(
    ("backends", "images"), [(GLOO, CPU), (BOTH, CPU), (BOTH, GPU), (NCCL, GPU)], ids=str
)
def test_backends_for_the_images(backends: dict[str, str], images: torch.device) -> None:
    check_backend(backends, images)


@pytest.mark.parametrize(
    ("backends", "images", "sentence"),
    [
        (NCCL, CPU, "images on cpu, as cpu:gloo,cuda:nccl has, got cuda:nccl"),
        (GLOO, GPU, "images on cuda, as cpu:gloo,cuda:nccl has, got cpu:gloo,cuda:gloo"),
        ({"cpu": "gloo"}, GPU, "images on cuda, as cpu:gloo,cuda:nccl has, got cpu:gloo"),
    ],
    ids=str,
)
def test_no_backend_for_the_images(
    backends: dict[str, str], images: torch.device, sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^group must have a backend for {sentence}$"):
        check_backend(backends, images)


@pytest.mark.parametrize("images", [CPU, GPU, torch.device("meta"), None], ids=str)
def test_records_are_where_all_ranks_can_exchange_them(images: torch.device | None) -> None:
    """Whatever the images of one of them are on."""
    assert record_device(GLOO, images) == CPU
    assert record_device(BOTH, images) == CPU
    assert record_device(NCCL, images) == (GPU if images == GPU else torch.device("cuda"))


@pytest.mark.parametrize(
    ("having", "check"), [([BOTH, NCCL, BOTH], True), ([NCCL] * 3, True), ([NCCL] * 3, False)]
)
def test_a_rank_without_a_backend(ranks: Ranks, having: list[dict[str, str]], check: bool) -> None:
    for error in ranks.errors(sharding.with_backends, having, check):
        assert re.fullmatch(
            r"ValueError: (rank 1: )?group must have a backend for images on cpu, .* got cuda:nccl",
            error,
        )


def test_backends_by_device(ranks: Ranks) -> None:
    """Also of a group whose backend is named by device."""
    for found in ranks.run(sharding.backends_by_device):
        assert found == [GLOO, GLOO, {"cpu": "gloo"}]


@pytest.mark.parametrize("group", [-100, "gloo"])  # the first is what ranks outside of a group get
def test_what_is_no_group(ranks: Ranks, group: object) -> None:
    image = torch.rand(1, 1, 4, 4)
    for error in ranks.errors(sharding.call_with, [(image, image, {"group": group})] * 3):
        assert error == (
            f"TypeError: group must be a process group that has this rank, got {group!r}"
        )
