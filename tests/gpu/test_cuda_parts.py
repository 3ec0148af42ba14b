# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Volumes in parts: tiles on the GPU of volumes on either side, and a group of one GPU."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from gpu import DEVICE, all_on_gpu, on_gpu
from helpers import Result, assert_result_close, assert_same_bits, evaluate, expected_result
from inputs import Case
from parts.tiles import options_of, tiled_result

import nec_ext

pytestmark = pytest.mark.cuda
CASES = [Case("tiled_2d", (2, 2, 40, 11)), Case("tiled_3d", (2, 2, 9, 30, 33))]


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tiles(case: Case, on_host: bool) -> None:
    images, options = case.images(), options_of(case)
    expected = expected_result(*images, 1.0, **options)
    if not on_host:
        images, options = [*map(on_gpu, images)], all_on_gpu(options)
    results = [
        tiled_result(*images, tiles=tiles, device=DEVICE, **options) for tiles in (1, 2, 5, None)
    ]
    for result in results:
        assert_same_bits(result, results[0])
    assert_result_close(Result(*(tensor.cpu() for tensor in results[0])), expected)


def test_a_gradient_of_more_digits_than_the_images() -> None:
    images = CASES[1].images()
    wanted = torch.zeros(images[0].shape)
    gradient = wanted.double()
    for memory in (gradient, wanted):
        nec_ext.tiled.ngf_loss(*images, grad_input=memory, device=DEVICE, tiles=2)
    assert torch.equal(gradient, wanted.double())


def test_memory_of_tiles() -> None:
    images = Case("tiled_memory", (1, 1, 128, 256, 256)).images()
    gradient = torch.zeros_like(images[0])
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nec_ext.tiled.ngf_loss(*images, grad_input=gradient, device=DEVICE, max_memory=16 << 20)
    assert torch.cuda.max_memory_allocated() - before <= 17 << 20
    assert gradient.count_nonzero() > 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_group_of_one(case: Case, tmp_path: Path) -> None:
    images, options = [*map(on_gpu, case.images())], all_on_gpu(options_of(case))
    dist.init_process_group("nccl", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = evaluate(nec_ext.distributed.ngf_loss, *images, **options)
    finally:
        dist.destroy_process_group()
    assert_result_close(found, expected_result(*images, **options))
