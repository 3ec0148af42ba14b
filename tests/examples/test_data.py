# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/data: from files or the phantom to images."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brats_files import NAMES, by_hand, options, save, volume
from brats_runs import assert_equal

from examples.brats.data import sources, split
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.common.nifti import DataError
from examples.common.phantom import brain_phantom

pytestmark = pytest.mark.usefixtures("own_cache")
T1, T2 = (f"{NAMES[0]}/{NAMES[0]}-{kind}.nii.gz" for kind in ("t1n", "t2w"))
BOX = slice(2, 14), slice(3, 14), slice(0, 6)  # around the voxels of a T1 and its T2


def test_groups_are_those_of_the_sorted_subjects_and_normalized_as_in_the_paper(root: Path) -> None:
    data = load_data(options(root))
    groups = [data.source, data.target, data.validation, data.test]
    assert [images.names for images in groups] == [NAMES[:1], NAMES[1:3], NAMES[3:4], NAMES[4:]]
    for images in groups:
        for name, *found, brain in zip(
            images.names, images.t1, images.t2, images.brain, strict=True
        ):
            k = NAMES.index(name)
            raw = [volume(2 * k + j)[:, :, 2] for j in (0, 1)]
            for image, slices in zip(found, raw, strict=True):
                np.testing.assert_allclose(image[0], by_hand(slices, slices), atol=1e-6)
            np.testing.assert_array_equal(brain[0], (raw[0] > 0) | (raw[1] > 0))


def test_percentiles_of_a_volume_of_the_foreground_and_others(root: Path) -> None:
    slices, voxels = volume(0)[:, :, 2], volume(0)
    for changes, expected in (
        ({"percentile_scope": "volume"}, by_hand(slices, voxels)),
        ({"percentile_mask": "foreground"}, by_hand(slices, slices[slices > 0])),
        ({"lower": 5.0, "upper": 90.0}, by_hand(slices, slices, 5, 90)),
    ):
        found = load_data(options(root, **changes)).source.t1[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_crop_is_the_centre_after_the_percentiles(root: Path) -> None:
    whole, part = (load_data(options(root, crop=n, size=n or 16)).source for n in (0, 8))
    assert torch.equal(part.t1, whole.t1[..., 4:12, 4:12])
    assert torch.equal(part.brain, whole.brain[..., 4:12, 4:12])
    assert part.spacing == whole.spacing == 1
    assert load_data(options(root, crop=8, size=16)).source.spacing == 0.5


def test_slices_of_a_range_without_the_empty_ones(root: Path) -> None:
    voxels = volume(1)
    voxels[:, :, 3:] = 0
    save(root / T2, voxels)
    with pytest.warns(UserWarning, match=r"train_t1: 2 slices.*slice 3 of .*00003.*-t1n.nii.gz"):
        data = load_data(options(root, slices="1:6:2"))
    assert data.source.names == [f"{NAMES[0]}_s001"]
    assert data.target.names == [f"{name}_s{k:03d}" for name in NAMES[1:3] for k in (1, 3, 5)]
    assert data.target.subjects == [NAMES[1]] * 3 + [NAMES[2]] * 3
    raw = volume(5)[:, :, 3]
    np.testing.assert_allclose(data.target.t2[4, 0], by_hand(raw, raw), atol=1e-6)


def test_images_come_from_the_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_data(options(root))
    read: list[str] = []
    real = sources.read_pair
    monkeypatch.setattr(
        sources, "read_pair", lambda *paths: read.append(paths[0].name) or real(*paths)
    )
    assert_equal(asdict(load_data(options(root))), asdict(first))
    assert not read
    load_data(options(root, upper=98.0))
    assert len(read) == 5
    save(root / T1, volume(77))
    assert not torch.equal(load_data(options(root)).source.t1, first.source.t1)
    os.utime(root / NAMES[4] / f"{NAMES[4]}-t2w.nii.gz")  # a newer file of the same size
    load_data(options(root))
    assert read[5:] == [Path(T1).name, f"{NAMES[4]}-t1n.nii.gz"]


def test_phantom_is_the_default_and_normalized_alike() -> None:
    data = load_data(DataOptions(size=32, seed=3, phantom_sizes="2/2/1/1"))
    brain = brain_phantom((32, 32), seed=3, index=3)
    for kind, raw in (("t1", brain.t1), ("t2", brain.t2)):
        raw = raw[::-1, ::-1]  # right and front to left and back
        np.testing.assert_allclose(getattr(data.target, kind)[1, 0], by_hand(raw, raw), atol=1e-6)
    np.testing.assert_array_equal(data.target.labels[1, 0], brain.labels[::-1, ::-1])
    np.testing.assert_array_equal(data.target.brain[1, 0], (brain.labels > 0)[::-1, ::-1])
    assert data.target.spacing == 6.0


def test_volumes_are_normalized_whole_and_cropped_to_the_brain(root: Path) -> None:
    larger = [np.pad(volume(k), ((4, 0), (0, 2), (1, 0))) for k in (76, 77)]  # of another shape
    for kind, voxels in zip(("t1n", "t2w"), larger, strict=True):
        save(root / NAMES[2] / f"{NAMES[2]}-{kind}.nii.gz", voxels)
    data = load_data(options(root, dimensions=3))
    assert data.target.names == data.target.subjects == NAMES[1:3]
    assert [image.shape for image in data.target.t2] == [(1, 12, 11, 6)] * 2
    np.testing.assert_allclose(data.source.t1[0][0], by_hand(volume(0), volume(0))[BOX], atol=1e-6)
    expected = by_hand(larger[1], larger[1])[4:, :-2, 1:][BOX]
    np.testing.assert_allclose(data.target.t2[1][0], expected, atol=1e-6)
    np.testing.assert_array_equal(data.target.brain[1][0], larger[1][4:, :-2, 1:][BOX] > 0)


def test_volumes_of_another_spacing(root: Path) -> None:
    smooth = np.zeros((16, 16, 6), np.int16)
    smooth[2:14, 2:14] = 100 + np.arange(12)[:, None, None]
    for path in root.glob("*/*.nii.gz"):
        save(path, smooth, np.diag([-1.0, -1, 2, 1]))
    images = load_data(options(root, dimensions=3, spacing=2.0)).source
    assert images.t1[0].shape == images.brain[0].shape == (1, 6, 6, 6)
    assert images.spacing == 2.0
    low, high = np.percentile(smooth, [1, 99])
    expected = 2 * (100.5 + 2 * np.arange(6) - low) / (high - low) - 1
    np.testing.assert_allclose(images.t1[0][0, 1:-1, 3, 3], expected[1:-1], atol=2e-3)


def test_split_from_a_file(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    groups = {"train_t1": NAMES[4:], "train_t2": NAMES[:2], "val": NAMES[2:3]}
    path.write_text(json.dumps(groups | {"test": {"n": 1, "ids": NAMES[3:4]}}))
    data = load_data(options(root, split=str(path)))
    found = [images.names for images in vars(data).values()]
    assert found == [NAMES[4:], NAMES[:2], NAMES[2:3], NAMES[3:4]]
    for test, message in (
        ({"test": NAMES[:1]}, f"the split names subject {NAMES[0]} twice"),
        ({"test": ["BraTS-GLI-99999-000"]}, "has no subject BraTS-GLI-99999-000"),
        ({}, r"must be a JSON file with lists .*KeyError"),
    ):
        path.write_text(json.dumps(groups | test))
        with pytest.raises(DataError, match=message):
            load_data(options(root, split=str(path)))


def test_a_patient_in_training_and_elsewhere_is_worth_a_warning(root: Path) -> None:
    (root / NAMES[4]).rename(root / "BraTS-GLI-00020-001")
    with pytest.warns(UserWarning, match="BraTS-GLI-00020 is in training and in val"):
        split.split_subjects(options(root))


def truncated(root: Path) -> None:
    whole = gzip.decompress((root / T1).read_bytes())
    (root / T1).write_bytes(gzip.compress(whole)[:-200])


def files(*paths: str, voxels: np.ndarray, steps: tuple[float, ...] = (1, 1, 1)) -> Any:
    """Make a function that replaces files."""
    affine = np.diag([-steps[0], -steps[1], steps[2], 1])
    return lambda root: [save(root / path, voxels, affine) for path in paths]


DAMAGES = (
    (truncated, f"{T1} cannot be read as NIfTI: "),
    (files(T2, voxels=np.where(volume(1) > 0, 1, np.nan)), f"{T2} contains NaN or infinite voxels"),
    (files(T1, voxels=0 * volume(0)), f"slice 2 of .*{T1} or its T2 has no contrast"),
    (lambda root: (root / T2).unlink(), f"{NAMES[0]} has no {NAMES[0]}-t2w.nii.gz"),
    (lambda root: shutil.rmtree(root / NAMES[4]), "split=1/2/1/1 needs 5 subjects, .* has 4"),
    (files(T2, voxels=volume(1)[:, :, 1:]), rf"{T2} has shape \(16, 16, 5\), its"),
    (files(T2, voxels=volume(1), steps=(1, 1, 2)), f"{T2} lies differ"),
    (files(T1, T2, voxels=volume(0)[:, 2:14]), f"{T1} must have square .*16 x 12 of 1 x 1 mm"),
)


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damage_is_named_in_one_sentence(
    root: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(root)
    with pytest.raises(DataError, match=message) as raised:
        load_data(options(root))
    assert "\n" not in str(raised.value)


def test_options_are_refused(root: Path) -> None:
    for changes, message in (
        ({"data": "/nowhere"}, "/nowhere is not a folder"),
        ({"split": "400/400/10"}, "split must be four numbers"),
        ({"slices": "all"}, "slices must be k"),
        ({"lower": 99.0}, "percentiles must be"),
        ({"dimensions": 3, "crop": 8}, "crop is for slices"),
        ({"data": None}, "split divides the subjects of data"),
    ):
        with pytest.raises(ValueError, match=message):
            load_data(options(root, **changes))
