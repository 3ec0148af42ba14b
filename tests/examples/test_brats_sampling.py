# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: batches by number."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from examples.brats.data.images import Data, ImageSet, training_pairs


def numbered(n: int, size: int = 8) -> Data:
    """Groups whose image k is k (T1) or -k (T2) in the first one, 100 + k in the second."""
    count = torch.arange(n, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, size, size)
    names = [str(k) for k in range(n)]
    rest = {"brain": count > -1, "labels": None, "spacing": 1.0}
    source = ImageSet(names, count, -count, **rest)
    target = ImageSet(names, 200 + count, 100 + count, **rest)
    return Data(source, target, source, source)


def first_pixels(images: Tensor) -> list[int]:
    return images[:, 0, 0, 0].int().tolist()


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_epoch_sees_each_source_once(world_size: int) -> None:
    pairs = training_pairs(numbered(12), paired=False, batch_size=3, seed=1)
    steps = pairs.steps_per_epoch(world_size)
    assert steps == 4 // world_size
    epochs, targets = [], []
    for epoch in range(3):
        seen = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            ranks = [pairs.batch(step, "none", rank, world_size) for rank in range(world_size)]
            step_sources = [k for source, _ in ranks for k in first_pixels(source)]
            assert len(set(step_sources)) == 3 * world_size  # ranks are disjoint
            seen += step_sources
            targets += [k for _, target in ranks for k in first_pixels(target)]
        assert sorted(seen) == list(range(12))
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    assert set(targets) <= set(range(100, 112))
    assert len(set(targets)) > 8
    # Uniform draws: within an epoch some targets come twice.
    assert len(set(targets[:12])) < 12


@pytest.mark.parametrize("augment", ["flip", "jitter"])
def test_augmentation_is_joint_for_pairs_and_not_otherwise(augment: str) -> None:
    ramp = torch.linspace(-1, 1, 16).reshape(1, 1, 16, 1) + torch.linspace(0, 0.1, 16)
    images = numbered(1, 16).source
    images = dataclasses.replace(images, t1=ramp, t2=-ramp)
    data = Data(images, images, images, images)
    paired = training_pairs(data, True, batch_size=8, seed=0).batch(0, augment)
    torch.testing.assert_close(paired[1], -paired[0])
    alone = training_pairs(data, False, batch_size=8, seed=0).batch(0, augment)
    assert not torch.allclose(alone[1], -alone[0])
    # Left and right change sides, back and front do not.
    rises = {bool(image[0, -1, 0] > image[0, 0, 0]) for image in alone[0]}
    assert rises == {True, False}
    assert all(image[0, 0, -1] > image[0, 0, 0] for image in alone[0])
    assert alone[0].shape == (8, 1, 16, 16)
    if augment == "jitter":  # 16 of 18 pixels: the ramp is less steep, and begins anywhere
        steps = alone[0].diff(dim=2).abs()[:, :, 3:-3].mean((1, 2, 3))
        torch.testing.assert_close(steps, torch.full((8,), 2 / 15 * 16 / 18), rtol=0.02, atol=0)
        assert len({round(image.min().item(), 3) for image in alone[0]}) > 2
