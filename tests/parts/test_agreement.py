# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What ranks tell each other, over which backend, and what all of them refuse."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sharding
import torch
from sharding import Ranks

from nec_ext._agreement import (
    MESSAGE_LENGTH,
    RECORD_BYTES,
    check_backend,
    describe,
    encode,
    record_device,
)
from nec_ext._arguments import Options

GLOO = {"cpu": "gloo", "cuda": "gloo"}  # as of the backend "gloo"
NCCL = {"cuda": "nccl"}
BOTH = {"cuda": "nccl", "cpu": "gloo"}
CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def test_a_record_holds_the_longest_description() -> None:
    """Numbers have all digits, maps the longest dtype, and axes are long."""
    image = torch.empty((), dtype=torch.bfloat16).expand(1000, 1000, 1000, 1000, 9 * 10**6)
    third = 1 / 3e-200
    o = Options(
        image, image, "quadrature", "central", (third,) * 3, image, -third, "mean", "absolute"
    )
    assert len(encode(describe([image] * 5, o, 2))) <= RECORD_BYTES
    assert len(encode({"error": '"' * MESSAGE_LENGTH})) <= RECORD_BYTES


def test_backends_for_the_images() -> None:
    for backends, images in ((GLOO, CPU), (BOTH, CPU), (NCCL, GPU)):
        check_backend(backends, images)
    for backends, images, having in (
        (NCCL, CPU, "cuda:nccl"),
        (GLOO, GPU, "cpu:gloo,cuda:gloo"),
        ({"cpu": "gloo"}, GPU, "cpu:gloo"),
    ):
        sentence = f"images on {images.type}, as cpu:gloo,cuda:nccl has, got {having}"
        with pytest.raises(ValueError, match=f"^group must have a backend for {sentence}$"):
            check_backend(backends, images)


def test_records_are_where_all_ranks_can_exchange_them() -> None:
    """The device of the images of one rank does not matter."""
    for images in (CPU, GPU, torch.device("meta"), None):
        assert record_device(GLOO, images) == record_device(BOTH, images) == CPU
        assert record_device(NCCL, images) == (GPU if images == GPU else torch.device("cuda"))


@pytest.mark.parametrize("check", [True, False])
def test_ranks_without_a_backend(ranks: Ranks, check: bool) -> None:
    having = [BOTH if check else NCCL, NCCL, NCCL]
    for error in ranks.errors(sharding.with_backends, having, check):
        assert "group must have a backend for images on cpu" in error
        assert error.endswith("got cuda:nccl")


SHAPE = (1, 2, 4, 5, 6)
IMAGE = torch.linspace(-1, 1, 240).view(SHAPE)
SAME = "must be the same on every rank"
SUBCLASS = IMAGE.as_subclass(sharding.Subclass)
Arguments = tuple[Any, Any, dict[str, Any]]


def own_arguments(*, rank: int = 1, **changed: Any) -> list[Arguments]:
    """Return good arguments for three ranks, but for one of them."""
    images = changed.pop("input", IMAGE), changed.pop("target", IMAGE)
    arguments: list[Arguments] = [(IMAGE, IMAGE, {})] * 3
    arguments[rank] = (*images, changed)
    return arguments


def with_masks(*masks: torch.Tensor, input: torch.Tensor = IMAGE) -> list[Arguments]:
    return [(input if rank == 1 else IMAGE, IMAGE, {"mask": m}) for rank, m in enumerate(masks)]


SHORTER, THIN, SQUARES = IMAGE[..., :5], IMAGE[:, :, :1], IMAGE.square()
WRONG = [
    ("group must be .*, got -100", [(IMAGE, IMAGE, {"group": -100})] * 3),  # as outside of one
    ("two planes", [(THIN, THIN, {"check": False})] * 3),
    ("operator must be one of", own_arguments(operator="prewitt")),
    ("operator must be one of", own_arguments(operator="\u2192" * 300)),  # beyond ASCII
    ("input must be a torch.Tensor", own_arguments(input=3.0, rank=0)),
    ("reduction must be 'mean' or 'sum'", own_arguments(reduction="none")),
    ("dim must be a spatial axis, 2 to 4, got 1", own_arguments(dim=1, rank=2)),
    (f"split axis {SAME}: rank 0 has 2", own_arguments(dim=3)),
    (f"shape of input along the other axes {SAME}", own_arguments(input=SHORTER, target=SHORTER)),
    (f"dtype of input {SAME}", own_arguments(input=IMAGE.double())),
    (f"eps {SAME}: rank 0 has 0.15, rank 2 has 0.2", own_arguments(eps=0.2, rank=2)),
    (f"weight {SAME}", own_arguments(weight=2.0)),
    (f"whether mask is split {SAME}", with_masks(SQUARES, SQUARES[:, :, :1], SQUARES)),
    ("mask must not be negative", with_masks(SQUARES, -SQUARES, SQUARES)),
    ("mask must not be negative", with_masks(*[-SQUARES] * 3, input=SUBCLASS)),
]


@pytest.mark.parametrize(("sentence", "arguments"), WRONG)
def test_all_ranks_refuse(ranks: Ranks, sentence: str, arguments: list[Arguments]) -> None:
    for error in ranks.errors(sharding.call_with, arguments):
        assert error.startswith(("ValueError", "TypeError"))
        assert re.search(sentence, error), error
        assert "\n" not in error
    # And go on.
    good = ranks.run(sharding.call_with, own_arguments())
    assert good == [pytest.approx(good[0])] * 3


@pytest.mark.parametrize("check", [True, False])
def test_transforms_of_functions_are_refused(ranks: Ranks, check: bool) -> None:
    sentence = "nec_ext.distributed.ngf_loss has no vmap, grad or other transform of torch.func"
    for transform in ("vmap", "grad"):
        errors = ranks.errors(sharding.transformed, transform, check)
        assert errors == [f"RuntimeError: {sentence}"] * 3


@pytest.mark.parametrize("error", ["BrokenProcessPool", "ArithmeticError"])
def test_nobody_waits_for_a_rank_that_has_failed(error: str, tmp_path: Path) -> None:
    with closing(Ranks(2, tmp_path)) as two:
        waiting, failed = two.errors(sharding.fail_in_rank_1, SHAPE, error == "BrokenProcessPool")
    assert waiting.startswith(("RuntimeError", "DistBackendError"))
    assert failed.startswith(error)
