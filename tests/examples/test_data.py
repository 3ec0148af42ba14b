# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/data: from files or the phantom to images."""

import dataclasses
import gzip
import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from brats_runs import NAMES, assert_equal, by_hand, data_options, random_volumes, save, volume
from covering import covering
from torch import Tensor

from examples.brats.data import sources
from examples.brats.data.images import Data, ImageSet, load_data, training_pairs
from examples.brats.data.options import DataOptions
from examples.brats.data.sampling import Patches, read_ahead
from examples.common.nifti import DataError
from examples.common.phantom import brain_phantom

pytestmark = pytest.mark.usefixtures("own_cache")
T1, T2 = (f"{NAMES[0]}/{NAMES[0]}-{kind}.nii.gz" for kind in ("t1n", "t2w"))
BOX = slice(2, 14), slice(3, 14), slice(0, 6)  # around the voxels of a T1 and its T2


def test_groups_are_those_of_the_sorted_subjects_and_normalized_as_in_the_paper(root: Path) -> None:
    data = load_data(data_options(root))
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
        found = load_data(data_options(root, **changes)).source.t1[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_crop_is_the_centre_after_the_percentiles(root: Path) -> None:
    whole, part = (load_data(data_options(root, crop=n, size=n or 16)).source for n in (0, 8))
    assert torch.equal(part.t1, whole.t1[..., 4:12, 4:12])
    assert torch.equal(part.brain, whole.brain[..., 4:12, 4:12])
    assert part.spacing == whole.spacing == 1
    assert load_data(data_options(root, crop=8, size=16)).source.spacing == 0.5


def test_slices_of_a_range_without_the_empty_ones(root: Path) -> None:
    voxels = volume(1)
    voxels[:, :, 3:] = 0
    save(root / T2, voxels)
    with pytest.warns(UserWarning, match=r"train_t1: 2 slices.*slice 3 of .*00003.*-t1n.nii.gz"):
        data = load_data(data_options(root, slices="1:6:2"))
    assert data.source.names == [f"{NAMES[0]}_s001"]
    assert data.target.names == [f"{name}_s{k:03d}" for name in NAMES[1:3] for k in (1, 3, 5)]
    assert data.target.subjects == [NAMES[1]] * 3 + [NAMES[2]] * 3
    raw = volume(5)[:, :, 3]
    np.testing.assert_allclose(data.target.t2[4, 0], by_hand(raw, raw), atol=1e-6)


def test_images_come_from_the_cache(root: Path) -> None:
    first = load_data(data_options(root))
    with mock.patch.object(sources, "read_pair", wraps=sources.read_pair) as reading:
        assert_equal(asdict(load_data(data_options(root))), asdict(first))
        assert not reading.called
        load_data(data_options(root, upper=98.0))
        assert reading.call_count == 5
        save(root / T1, volume(77))
        assert not torch.equal(load_data(data_options(root)).source.t1, first.source.t1)
        os.utime(root / NAMES[4] / f"{NAMES[4]}-t2w.nii.gz")  # a newer file of the same size
        load_data(data_options(root))
    read = [call.args[0].name for call in reading.call_args_list[5:]]
    assert read == [Path(T1).name, f"{NAMES[4]}-t1n.nii.gz"]


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
    data = load_data(data_options(root, dimensions=3))
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
    images = load_data(data_options(root, dimensions=3, spacing=2.0)).source
    assert images.t1[0].shape == images.brain[0].shape == (1, 6, 6, 6)
    assert images.spacing == 2.0
    low, high = np.percentile(smooth, [1, 99])
    expected = 2 * (100.5 + 2 * np.arange(6) - low) / (high - low) - 1
    np.testing.assert_allclose(images.t1[0][0, 1:-1, 3, 3], expected[1:-1], atol=2e-3)


def write_split(path: Path, **groups: Any) -> str:
    path.write_text(json.dumps(groups))
    return str(path)


SPLIT = {"train_t1": NAMES[4:], "train_t2": NAMES[:2], "val": NAMES[2:3]}


def test_split_from_a_file(root: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "split.json", **SPLIT, test={"n": 1, "ids": NAMES[3:4]})
    data = load_data(data_options(root, split=split))
    found = [images.names for images in vars(data).values()]
    assert found == [NAMES[4:], NAMES[:2], NAMES[2:3], NAMES[3:4], NAMES[4:]]


def test_a_patient_in_training_and_elsewhere_is_worth_a_warning(root: Path) -> None:
    for path in root.glob(f"{NAMES[4]}/*"):
        path.rename(path.with_name(path.name.replace(NAMES[4], "BraTS-GLI-00020-001")))
    with pytest.warns(UserWarning, match="BraTS-GLI-00020 is in training and in val"):
        load_data(data_options(root))


@pytest.fixture
def mixed(root: Path) -> tuple[Path, dict[str, list[str]]]:
    """Subjects of volumes, others of slices, T1 alone among them; return them and their split."""
    for kind, numbers in (("t1n", (1, 2, 3, 5)), ("t2w", (1, 2, 3, 5))):
        for k in numbers:
            save(root / f"some/where/sub-{kind}_s{k:03d}.nii.gz", volume(50 + k)[:, :, k : k + 1])
    save(root / "t1/alone-t1n_s080.nii.gz", volume(60)[:, :, 2:3])
    save(root / "t1/sub-t1n_s002.nii.gz", volume(61)[:, :, 2:3])  # some/where comes first
    split = {"train_t1": [NAMES[0], "alone"], "train_t2": [NAMES[1], "sub"], "val": NAMES[2:3]}
    return root, split | {"test": NAMES[3:4], "train_paired": ["sub"]}


def test_slices_in_files_mix_with_volumes(mixed: tuple[Path, Any], tmp_path: Path) -> None:
    root, split = mixed
    choice = {"slices": "1:4", "split": write_split(tmp_path / "split.json", **split)}
    data = load_data(data_options(root, **choice))
    whole = [[f"{name}_s{k:03d}" for k in (1, 2, 3)] for name in NAMES]
    slices = [f"sub_s{k:03d}" for k in (1, 2, 3, 5)]
    assert data.source.names == [*whole[0], "alone_s080"]
    assert data.target.names == [*whole[1], *slices]
    assert data.pairs.names == slices
    assert data.pairs.subjects == ["sub"] * 4
    assert (len(data.source.t2), len(data.target.t1)) == (0, 0)
    for images, k, raw in (
        (data.source.t1, 3, volume(60)[:, :, 2]),
        (data.target.t2, 5, volume(53)[:, :, 3]),
        (data.pairs.t1, 1, volume(52)[:, :, 2]),
    ):
        np.testing.assert_allclose(images[k, 0], by_hand(raw, raw), atol=1e-6)
    paired = training_pairs(data, True, batch_size=4, seed=0)
    assert torch.equal(paired.source, data.pairs.t1) and torch.equal(paired.target, data.pairs.t2)

    few = load_data(data_options(root, training_slices=1, paired_t1=True, **choice))
    assert few.source.names == [f"{NAMES[0]}_s002", "alone_s080", "sub_s003"]
    assert few.target.names == [f"{NAMES[1]}_s002", "sub_s003"]
    assert few.test.names == whole[3]  # of which every slice counts
    one, both = (load_data(data_options(root, subjects=n, **choice)) for n in (1, 2))
    assert set(one.source.subjects) < set(both.source.subjects) == {NAMES[0], "alone"}
    assert one.validation.names == whole[2]


def truncated(root: Path) -> None:
    whole = gzip.decompress((root / T1).read_bytes())
    (root / T1).write_bytes(gzip.compress(whole)[:-200])


def files(*paths: str, voxels: np.ndarray, steps: tuple[float, ...] = (1, 1, 1)) -> Any:
    affine = np.diag([-steps[0], -steps[1], steps[2], 1])
    return lambda root: [save(root / path, voxels, affine) for path in paths]


def without(path: str) -> Any:
    return lambda root: (root / path).unlink()


def test_slices_that_do_not_fit(mixed: tuple[Path, Any], tmp_path: Path) -> None:
    root, split = mixed
    first, third = (f"some/where/sub-t2w_s00{k}.nii.gz" for k in (1, 3))
    larger = files(first, voxels=volume(1, (20, 20, 1)))
    for damage, groups, changes, message in (
        (None, {"train_paired": ["alone"]}, {}, "alone has slice 80 in one contrast only"),
        (None, {"train_t2": ["alone"], "train_t1": NAMES[:1]}, {}, "alone has no alone-t2w.nii.gz"),
        (None, {"test": ["sub"]}, {}, "the split names subject sub twice"),
        (None, {}, {"dimensions": 3}, "alone has no alone-t1n.nii.gz"),
        (None, {}, {"percentile_scope": "volume"}, "s080.nii.gz is one slice: percentile_scope"),
        (files(third, voxels=volume(1)), {}, {}, "sub-t2w_s003.nii.gz has 6 slices: its name"),
        (without(third), {}, {}, "sub has slice 3 in one contrast only"),
        (larger, {"train_paired": NAMES[4:]}, {}, "sub-t2w_s001.nii.gz has .* the first subject"),
    ):
        if damage:
            damage(root)
        written = write_split(tmp_path / "split.json", **split | groups)
        with pytest.raises(DataError, match=message):
            load_data(data_options(root, split=written, **changes))


def test_splits_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    for test, message in (
        ({"test": ["BraTS-GLI-99999-000"]}, "has no subject BraTS-GLI-99999-000"),
        ({}, r"must be a JSON file with lists .*KeyError"),
    ):
        split = write_split(tmp_path / "split.json", **SPLIT, **test)
        with pytest.raises(DataError, match=message):
            load_data(data_options(root, split=split))


REFUSED: tuple[tuple[Any, dict[str, Any], str], ...] = (
    (truncated, {}, f"{T1} cannot be read as NIfTI: "),
    (files(T2, voxels=np.where(volume(1) > 0, 1, np.nan)), {}, f"{T2} contains NaN or infinite"),
    (files(T1, voxels=0 * volume(0)), {}, f"slice 2 of .*{T1} or its T2 has no contrast"),
    (without(T2), {}, f"{NAMES[0]} has no {NAMES[0]}-t2w.nii.gz"),
    (lambda root: shutil.rmtree(root / NAMES[4]), {}, "split=1/2/1/1 needs 5 subjects, .* has 4"),
    (files(T2, voxels=volume(1)[:, :, 1:]), {}, rf"{T2} has shape \(16, 16, 5\), its"),
    (files(T2, voxels=volume(1), steps=(1, 1, 2)), {}, f"{T2} lies differ"),
    (files(T1, T2, voxels=volume(0)[:, 2:14]), {}, f"{T1} must have square .*16 x 12 of 1 x 1 mm"),
    (None, {"data": "/nowhere"}, "/nowhere is not a folder"),
    (None, {"split": "400/400/10"}, "split must be four numbers"),
    (None, {"slices": "all"}, "slices must be k"),
    (None, {"lower": 99.0}, "percentiles must be"),
    (None, {"dimensions": 3, "crop": 8}, "crop is for slices"),
    (None, {"data": None}, "split divides the subjects of data"),
    (None, {"subjects": -1}, "subjects must not be negative"),
    (None, {"paired_t1": True}, "paired_t1 needs a split with a group train_paired"),
)


@pytest.mark.parametrize(("damage", "changes", "message"), REFUSED)
def test_refused_in_one_sentence(
    root: Path, damage: Any, changes: dict[str, Any], message: str
) -> None:
    if damage:
        damage(root)
    with pytest.raises(ValueError, match=message) as raised:
        load_data(data_options(root, **changes))
    assert "\n" not in str(raised.value)


def numbered(n: int, size: int = 8) -> Data:
    """Make groups whose image k is k (T1) or -k (T2) in the first one, 100 + k in the second."""
    count = torch.arange(n, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, size, size)
    names = [str(k) for k in range(n)]
    rest = {"brain": count > -1, "labels": None, "spacing": 1.0}
    source = ImageSet(names, count, -count, **rest)
    target = ImageSet(names, 200 + count, 100 + count, **rest)
    return Data(source, target, source, source, source)


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
    data = Data(images, images, images, images, images)
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
        assert_equal([*map(tuple, batches)], expected[2:])
    if paired:  # negated, a T1 gives itself away in a crop of its T2
        again.target = [-image for image in again.source]
        source, target = again.batch(0, "flip")
        padding = (source == -1) & (target == -1)
        assert torch.equal(target[~padding], -source[~padding])
