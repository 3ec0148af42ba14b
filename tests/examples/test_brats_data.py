# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: from files to images, the cache, and the phantom in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brats_files import NAMES, by_hand, options, save, volume
from monai.transforms import Compose, Resize, ScaleIntensityRangePercentiles
from torch import Tensor

from examples.brats.data import sources
from examples.brats.data.images import Data, load_data
from examples.brats.data.options import DataOptions
from examples.common.nifti import DataError
from examples.common.phantom import brain_phantom

pytestmark = pytest.mark.usefixtures("own_cache")


def test_groups_are_those_of_the_sorted_subjects(root: Path) -> None:
    data = load_data(options(root))
    groups = [data.source, data.target, data.validation, data.test]
    assert [images.names for images in groups] == [NAMES[:1], NAMES[1:3], NAMES[3:4], NAMES[4:]]
    for images in groups:
        assert len(images) == len(images.names) == len(images.t1)
        assert images.t1.dtype == images.t2.dtype == torch.float32
        assert images.labels is None
    first, second = (volume(2 * k)[:, :, 2] for k in (1, 2))
    for image, raw in zip(data.target.t1, (first, second), strict=True):
        np.testing.assert_allclose(image[0], by_hand(raw, raw), atol=1e-6)


def test_a_slice_is_normalized_as_in_the_paper(root: Path) -> None:
    data = load_data(options(root))
    for kind, seed in (("t1", 0), ("t2", 1)):
        raw = volume(seed)[:, :, 2]
        image = getattr(data.source, kind)
        assert image.shape == (1, 1, 16, 16)
        np.testing.assert_allclose(image[0, 0], by_hand(raw, raw), atol=1e-6)
        assert (image[0, 0][torch.from_numpy(raw == 0)] == -1).all()
    np.testing.assert_array_equal(data.source.brain[0, 0], volume(0)[:, :, 2] > 0)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"percentile_scope": "volume", "percentile_mask": "foreground"}, lambda v: v[v > 0]),
        ({"lower": 5.0, "upper": 90.0}, lambda v: v[:, :, 2]),
    ],
)
def test_percentiles_of(
    root: Path, changes: dict[str, Any], values: Callable[[np.ndarray], np.ndarray]
) -> None:
    data = load_data(options(root, **changes))
    limits = changes.get("lower", 1), changes.get("upper", 99)
    expected = by_hand(volume(0)[:, :, 2], values(volume(0)), *limits)
    np.testing.assert_allclose(data.source.t1[0, 0], expected, atol=1e-6)


def test_resizing_is_monais(root: Path) -> None:
    oracle = Compose(
        [
            ScaleIntensityRangePercentiles(1, 99, -1, 1, clip=True),
            Resize((40, 40), mode="bilinear", align_corners=False),
        ]
    )
    images = load_data(options(root, size=40)).source
    expected = oracle(volume(0)[None, :, :, 2].astype(np.float32))
    np.testing.assert_allclose(images.t1[0], expected, atol=1e-5)
    assert images.spacing == 0.4
    # Background stays exactly -1 beyond the reach of the filter, also where images get smaller.
    for size in (40, 8):
        images = load_data(options(root, size=size)).source
        rough = load_data(options(root, size=size, anti_aliasing=False)).source
        assert torch.allclose(images.t1, rough.t1, atol=1e-5) == (size == 40)
        assert (images.t1[0, 0, :, 0] == -1).all()
        assert images.brain.shape == images.t1.shape
        assert 0.3 < images.brain.float().mean() < 0.6


def test_crop_is_the_centre_after_the_percentiles(root: Path) -> None:
    whole, part = (load_data(options(root, crop=n, size=n or 16)).source for n in (0, 8))
    assert torch.equal(part.t1, whole.t1[..., 4:12, 4:12])
    assert torch.equal(part.brain, whole.brain[..., 4:12, 4:12])
    assert part.spacing == whole.spacing == 1
    assert load_data(options(root, crop=8, size=16)).source.spacing == 0.5
    with pytest.raises(DataError, match="slices of 16² pixels: crop=17 is more"):
        load_data(options(root, crop=17))


def test_slices_of_a_range_without_the_empty_ones(root: Path) -> None:
    path = root / NAMES[0] / f"{NAMES[0]}-t2w.nii.gz"
    voxels = volume(1)
    voxels[:, :, 3] = 0
    voxels[:, :, 5] = 0
    voxels[8, 8, 5] = 1  # less than the percentiles see
    save(path, voxels)
    with pytest.warns(UserWarning, match=r"train_t1: 2 slices.*slice 3 of .*00003.*-t1n.nii.gz"):
        data = load_data(options(root, slices="1:6:2"))
    assert data.source.names == [f"{NAMES[0]}_s001"]
    assert data.target.names == [f"{name}_s{k:03d}" for name in NAMES[1:3] for k in (1, 3, 5)]
    assert data.target.subjects == [NAMES[1]] * 3 + [NAMES[2]] * 3
    for k, image in zip((1, 3, 5), data.target.t2[3:], strict=True):
        raw = volume(5)[:, :, k]
        np.testing.assert_allclose(image[0], by_hand(raw, raw), atol=1e-6)


def test_older_names(root: Path) -> None:
    expected = load_data(options(root))
    for name in NAMES:
        for new, old in (("-t1n.nii.gz", "_t1.nii.gz"), ("-t2w.nii.gz", "_t2.nii.gz")):
            (root / name / (name + new)).rename(root / name / (name + old))
    assert torch.equal(load_data(options(root)).test.t2, expected.test.t2)
    swapped = load_data(options(root, t1_suffix="_t2.nii.gz", t2_suffix="_t2.nii.gz"))
    assert torch.equal(swapped.source.t1, expected.source.t2)


def equal(a: Data, b: Data) -> bool:
    """Whether all groups have the same content."""
    pairs = [
        (content, getattr(getattr(b, name), field))
        for name, images in vars(a).items()
        for field, content in vars(images).items()
    ]
    return all(torch.equal(x, y) if isinstance(x, Tensor) else x == y for x, y in pairs)


def test_images_come_from_the_cache(
    root: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_data(options(root))
    assert len(list(own_cache.iterdir())) == 4
    read: list[Path] = []
    real = sources.read_pair
    monkeypatch.setattr(sources, "read_pair", lambda *paths: read.append(paths[0]) or real(*paths))
    assert equal(load_data(options(root)), first)
    assert not read
    # The split is not part of the images, where a group has the same subjects.
    load_data(options(root, split="1/2/1/1", slices="2"))
    assert not read

    # Another option, another file or a damaged cache: read again.
    load_data(options(root, upper=98.0))
    assert len(read) == 5
    save(root / NAMES[0] / f"{NAMES[0]}-t1n.nii.gz", volume(77))
    changed = load_data(options(root))
    assert [path.name for path in read[5:]] == [f"{NAMES[0]}-t1n.nii.gz"]
    assert not torch.equal(changed.source.t1, first.source.t1)
    for path in own_cache.iterdir():
        damaged = path.read_bytes()[:1000]
        path.unlink()  # the images above are mapped to it
        path.write_bytes(damaged)
    assert equal(load_data(options(root)), changed)
    assert len(read) == 11
    # A newer file of the same size.
    os.utime(root / NAMES[4] / f"{NAMES[4]}-t2w.nii.gz")
    load_data(options(root))
    assert [path.name for path in read[11:]] == [f"{NAMES[4]}-t1n.nii.gz"]
    assert not [path for path in own_cache.iterdir() if path.suffix == ".tmp"]


def test_phantom_is_the_default_and_normalized_alike() -> None:
    data = load_data(DataOptions(size=32, seed=3, phantom_sizes="2/2/1/1"))
    assert data.source.names == ["phantom-0000", "phantom-0001"]
    assert data.target.names == ["phantom-0002", "phantom-0003"]
    assert (data.validation.names, data.test.names) == (["phantom-0004"], ["phantom-0005"])
    brain = brain_phantom((32, 32), seed=3, index=3)
    for kind, raw in (("t1", brain.t1), ("t2", brain.t2)):
        raw = raw[::-1, ::-1]  # right and front to left and back
        np.testing.assert_allclose(getattr(data.target, kind)[1, 0], by_hand(raw, raw), atol=1e-6)
    np.testing.assert_array_equal(data.target.labels[1, 0], brain.labels[::-1, ::-1])
    np.testing.assert_array_equal(data.target.brain[1, 0], (brain.labels > 0)[::-1, ::-1])
    assert data.target.spacing == 6.0
    wide = DataOptions(size=32, phantom_sizes="1/1/1/1", phantom_spacing=7.5, phantom_blur=1.0)
    blurred = load_data(wide).source
    assert blurred.spacing == 7.5
    assert (blurred.t1[~blurred.brain] == -1).all()
    assert torch.equal(blurred.brain, blurred.labels > 0)
    steps = [abs(images.t1.diff(dim=2)).mean() for images in (blurred, data.source)]
    assert steps[0] < 0.7 * steps[1]
