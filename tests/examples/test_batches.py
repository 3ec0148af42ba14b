# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/data/sampling.py: batches by number, of slices and of crops of volumes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from brats_runs import random_volumes
from covering import covering
from torch import Tensor

from examples.brats.data.images import Data, ImageSet, training_pairs
from examples.brats.data.sampling import Patches, read_ahead


def numbered(n: int, size: int = 8) -> Data:
    """Make groups whose image k is k (T1) or -k (T2) in the first one, 100 + k in the second."""
    count = torch.arange(n, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, size, size)
    names = [str(k) for k in range(n)]
    rest = {"brain": count > -1, "labels": None, "spacing": 1.0}
    source = ImageSet(names, count, -count, **rest)
    target = ImageSet(names, 200 + count, 100 + count, **rest)
    return Data(source, target, source, source)


@covering(world_size=[1, 2], paired=[False, True])
def test_an_epoch_sees_each_source_once(world_size: int, paired: bool) -> None:
    pairs = training_pairs(numbered(12), paired, batch_size=3, seed=1)
    steps = pairs.steps_per_epoch(world_size)
    assert steps == 4 // world_size
    epochs, targets = [], []
    for epoch in range(3):
        seen = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            ranks = [pairs.batch(step, "none", rank, world_size) for rank in range(world_size)]
            step_sources = [k for source, _ in ranks for k in source[:, 0, 0, 0].int().tolist()]
            assert len(set(step_sources)) == 3 * world_size  # ranks are disjoint
            seen += step_sources
            targets += [k for _, target in ranks for k in target[:, 0, 0, 0].int().tolist()]
        assert sorted(seen) == list(range(12))
        epochs.append(seen)
    assert epochs[0] != epochs[1] != epochs[2]
    if paired:
        assert targets == [-k for seen in epochs for k in seen]
    else:
        assert set(targets) <= set(range(100, 112))
        assert len(set(targets[:12])) < 12  # draws: within an epoch some targets come twice


@pytest.mark.parametrize("augment", ["flip", "jitter"])
def test_augmentation_is_joint_for_pairs_and_not_otherwise(augment: str) -> None:
    ramp = torch.linspace(-1, 1, 16).reshape(1, 1, 16, 1) + torch.linspace(0, 0.1, 16)
    images = dataclasses.replace(numbered(1, 16).source, t1=ramp, t2=-ramp)
    data = Data(images, images, images, images)
    paired = training_pairs(data, True, batch_size=8, seed=0).batch(0, augment)
    torch.testing.assert_close(paired[1], -paired[0])
    alone = training_pairs(data, False, batch_size=8, seed=0).batch(0, augment)
    assert not torch.allclose(alone[1], -alone[0])
    # Left and right change sides, back and front do not.
    assert len({bool(image[0, -1, 0] > image[0, 0, 0]) for image in alone[0]}) == 2
    assert all(image[0, 0, -1] > image[0, 0, 0] for image in alone[0])


def test_crops_of_two_brains_are_of_one_place() -> None:
    def places(*shape: int) -> Tensor:
        axes = [(torch.arange(n) + 0.5) / n for n in shape]  # from 0 to 1 along each axis
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    source, target = places(30, 40, 26), places(33, 36, 24)
    everywhere = [torch.ones(1, *image.shape[1:], dtype=torch.bool) for image in (source, target)]
    patches = Patches(16, everywhere[:1], everywhere[1:])
    rng = np.random.default_rng(0)
    for _ in range(50):
        place = patches.draw((0, 0), rng)
        a, b = (patches.cut(image, place) for image in (source, target))
        middles = (image.mean((1, 2, 3)) for image in (a, b))
        torch.testing.assert_close(*middles, rtol=0, atol=1.5 / 24)


def test_a_fifth_of_a_crop_is_brain_in_both_or_it_is_the_middle() -> None:
    brains = [torch.zeros(1, 40, 40, 40, dtype=torch.bool) for _ in range(2)]
    brains[0][:, :20] = True  # left
    brains[1][:, :, :20] = True  # front
    patches = Patches(8, brains[:1], brains[1:])
    rng = np.random.default_rng(0)
    shares = [
        min(patches.cut(brain.float(), place).clamp(0).mean().item() for brain in brains)
        for place in (patches.draw((0, 0), rng) for _ in range(60))
    ]
    assert 0.2 <= min(shares) < 0.4  # no more is asked for

    left, right = (torch.zeros(1, 40, 40, 40, dtype=torch.bool) for _ in range(2))
    left[:, :16], right[:, -16:] = True, True  # the same crop has one of them at most
    assert Patches(8, [left], [right]).draw((0, 0), rng).tolist() == [0.5] * 3


@pytest.mark.parametrize("paired", [False, True])
def test_batches_depend_on_their_numbers_only(paired: bool) -> None:
    pairs, again = (
        training_pairs(random_volumes(), paired, batch_size=2, seed=3, patch=16) for _ in range(2)
    )
    expected = [pairs.batch(step, "flip", 1, 2) for step in range(5)]
    for workers in (0, 2):
        batches = read_ahead(lambda k: again.batch(k, "flip", 1, 2), range(2, 5), workers, False)
        for found, (source, target) in zip(batches, expected[2:], strict=True):
            assert torch.equal(found[0], source)
            assert torch.equal(found[1], target)
    if paired:  # negated, a T1 gives itself away in a crop of its T2
        again.target = [-image for image in again.source]
        source, target = again.batch(0, "flip")
        padding = (source == -1) & (target == -1)
        assert torch.equal(target[~padding], -source[~padding])
