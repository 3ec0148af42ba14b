# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The memory that the loss tile by tile takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import allocations
from inputs import Case
from tiles import SHAPE, Slices, copy_tiles, stored
from torch import Tensor

import nec_ext
from nec_ext import _reading

MEMORY = Case("tiled_memory", (1, 1, 64, 64, 64))
PLANE = 64 * 64 * 4


@pytest.mark.parametrize("masked", [False, True])
def test_memory_is_that_of_a_tile(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place tiles take nothing; else what was asked for, whether as planes or as bytes."""
    images, gradient = MEMORY.images(), torch.zeros(MEMORY.shape)
    options = {"mask": torch.ones(MEMORY.shape)} if masked else {}

    def peak(**how: Any) -> int:
        def call() -> Tensor:
            loss: Tensor = nec_ext.tiled.ngf_loss(*images, grad_input=gradient, **options, **how)
            return loss

        return allocations(call)[0]

    small = 64 * 1024
    assert peak(tiles=16) <= small
    copy_tiles(monkeypatch)
    tensors = len(images) + masked
    for planes in (1, 4, 16):
        held = ((planes + 4) * tensors + planes) * PLANE
        assert held - PLANE <= peak(tiles=64 // planes) <= held + small
        assert held - (tensors + 1) * PLANE < peak(max_memory=held) <= held + small
    least = (5 * tensors + 1) * PLANE
    with pytest.raises(ValueError, match=f"max_memory must be at least {least}"):
        peak(max_memory=least - 1)


def test_memory_of_what_few_or_all_planes_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a plane of three lie two others; a map that is the same for all is there once."""
    copy_tiles(monkeypatch)
    images = [image[:, :, :3] for image in MEMORY.images()]
    gradient, mask = torch.zeros_like(images[0]), torch.ones(64, 64)
    for options, planes in (({}, 2 * 3 + 1), ({"mask": mask}, 2 * 3 + 1 + 1)):
        with pytest.raises(ValueError, match=f"at least {planes * PLANE} bytes"):
            nec_ext.tiled.ngf_loss(
                *images, grad_input=gradient, max_memory=planes * PLANE - 1, **options
            )
        nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=planes * PLANE, **options)


@pytest.mark.parametrize("name", ["eps", "mask"])
def test_a_bad_value_in_the_last_tile(name: str) -> None:
    """The search for it takes no more memory than a tile."""
    images = MEMORY.images()
    bad = torch.ones(MEMORY.shape)
    bad[..., -1, -1, -1] = -2

    def call() -> None:
        with pytest.raises(ValueError, match=f"{name} must .* got a value of -2.0"):
            nec_ext.tiled.ngf_loss(*images, tiles=16, **{name: bad})

    assert allocations(call)[0] <= 80 * 1024


def test_tiles_take_the_same_memory() -> None:
    """New memory for each of them would lie in pieces, and grow."""
    source = _reading.Source("input", torch.ones(1, 1, *SHAPE, dtype=torch.int16), is_map=False)
    source.turn(range(5), in_place=True)
    source.expect(4)
    first, other = (source.planes(k, 9, torch.device("cpu")) for k in (5, 6))
    assert first.shape[2] == 4 and other.shape[2] == 3
    assert first.data_ptr() == other.data_ptr()


@pytest.mark.parametrize(("slope", "read"), [(1.0, 2), (0.5, 2 + 2 * 8)])
def test_memory_of_converted_tiles(slope: float, read: int) -> None:
    """Besides a float32, ``read`` bytes per voxel are counted; numpy's own are not seen here."""
    images = [Slices(stored(seed, shape=(64, 64, 64)), slope=slope) for seed in range(2)]
    gradient = torch.zeros(images[0].shape)
    for planes in (1, 16):
        memory = ((planes + 4) * (2 * 4 + read) + planes * 4) * 64 * 64
        images[0].sizes.clear()
        nec_ext.tiled.ngf_loss(*images, grad_input=gradient, max_memory=memory)
        assert max(size[0] for size in images[0].sizes) == planes + 4
