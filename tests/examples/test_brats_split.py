# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats: who belongs where, and what is refused in one sentence."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brats_files import NAMES, options, save, volume

from examples.brats.data import split
from examples.brats.data.images import load_data
from examples.brats.data.options import DataOptions
from examples.common.nifti import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


def test_paper_split_is_recognized_by_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"BraTS-GLI-{k:05d}-000" for k in range(1251)]
    for name in reversed(names):
        (tmp_path / name).mkdir()
    paper = DataOptions(data=str(tmp_path))
    with pytest.warns(UserWarning, match="does not have the paper's subjects"):
        groups = split.split_subjects(paper)
    parts = names[:400], names[400:800], names[800:810], names[810:]
    assert tuple(groups.values()) == parts
    assert list(groups) == ["train_t1", "train_t2", "val", "test"]

    # Were these the paper's, nothing would be said.
    sums = tuple(hashlib.sha256("\n".join(part).encode()).hexdigest() for part in parts)
    monkeypatch.setattr(split, "PAPER_SHA256", sums)
    assert split.split_subjects(paper) == groups
    (tmp_path / names[1000]).rename(tmp_path / "BraTS-GLI-01000-001")
    with pytest.warns(UserWarning, match="paper's subjects"):
        split.split_subjects(paper)


def test_split_from_a_file(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    groups = {"train_t1": NAMES[4:], "train_t2": NAMES[:2], "val": NAMES[2:3]}
    path.write_text(json.dumps(groups | {"test": {"n": 1, "ids": NAMES[3:4]}}))
    data = load_data(options(root, split=str(path)))
    assert (data.source.names, data.target.names) == (NAMES[4:], NAMES[:2])
    assert (data.validation.names, data.test.names) == (NAMES[2:3], NAMES[3:4])

    for test, message in (
        (NAMES[:1], f"the split names subject {NAMES[0]} twice"),
        (["BraTS-GLI-99999-000"], "has no subject BraTS-GLI-99999-000"),
        ([], "at least one in each"),
        ("all", "must name subjects"),
    ):
        path.write_text(json.dumps(groups | {"test": test}))
        with pytest.raises(DataError, match=message):
            load_data(options(root, split=str(path)))
    path.write_text(json.dumps(groups))
    with pytest.raises(DataError, match=r"must be a JSON file with lists .*KeyError"):
        load_data(options(root, split=str(path)))


def test_a_patient_in_training_and_elsewhere_is_worth_a_warning(root: Path) -> None:
    (root / NAMES[4]).rename(root / "BraTS-GLI-00020-001")
    with pytest.warns(UserWarning, match="BraTS-GLI-00020 is in training and in val"):
        split.split_subjects(options(root))


T1, T2 = (f"{NAMES[0]}/{NAMES[0]}-{kind}.nii.gz" for kind in ("t1n", "t2w"))


def truncate(root: Path) -> None:
    whole = gzip.decompress((root / T1).read_bytes())
    (root / T1).write_bytes(gzip.compress(whole)[:-200])


def one_nan(root: Path) -> None:
    voxels = volume(1).astype(np.float32)
    voxels[5, 5, 5] = np.nan
    save(root / T2, voxels)


def empty_slice(root: Path) -> None:
    voxels = volume(0)
    voxels[:, :, 2] = 0
    save(root / T1, voxels)


def other_pixels(root: Path) -> None:
    for kind, k in (("t1n", 4), ("t2w", 5)):
        path = root / NAMES[2] / f"{NAMES[2]}-{kind}.nii.gz"
        save(path, volume(k), np.diag([-2.0, -2, 1, 1]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, f"{T1} cannot be read as NIfTI: "),
        (one_nan, f"{T2} contains NaN or infinite voxels"),
        (empty_slice, f"slice 2 of .*{T1} or its T2 has no contrast"),
        (lambda root: (root / T2).unlink(), f"{NAMES[0]} has no {NAMES[0]}-t2w.nii.gz"),
        (
            lambda root: save(root / T2, volume(1)[..., None]),
            rf"{T2} must be a 3D volume, got shape \(16, 16, 6, 1",
        ),
        (lambda root: save(root / T2, volume(1)[:, :, 1:]), rf"{T2} has shape \(16, 16, 5\), its"),
        (lambda root: save(root / T2, volume(1), np.diag([-1.0, -1, 2, 1])), f"{T2} lies differ"),
        (other_pixels, f"{NAMES[2]}-t1n.nii.gz has slices of 16² pixels of 2 mm, the first"),
        (lambda root: shutil.rmtree(root / NAMES[4]), "split=1/2/1/1 needs 5 subjects, .* has 4"),
    ],
)
def test_damage_is_named_in_one_sentence(
    root: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(root)
    with pytest.raises(DataError, match=message) as raised:
        load_data(options(root))
    assert "\n" not in str(raised.value)


def test_slices_that_are_not_square_or_not_there(root: Path) -> None:
    with pytest.raises(DataError, match=f"{T1} has 6 axial slices: there is no 6"):
        load_data(options(root, slices="2:7"))
    for path in (T1, T2):
        save(root / path, volume(0)[:, 2:14])
    with pytest.raises(DataError, match=f"{T1} must have square axial.*16 x 12 of 1 x 1 mm"):
        load_data(options(root))
    for path in (T1, T2):
        save(root / path, volume(0), np.diag([-1.0, -1.5, 1, 1]))
    with pytest.raises(DataError, match=r"16 x 16 of 1 x 1\.5 mm"):
        load_data(options(root))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "/nowhere"}, "/nowhere is not a folder"),
        ({"split": "400/400/10"}, "split must be four numbers"),
        ({"split": "/nowhere.json"}, "/nowhere.json must be a JSON file"),
        ({"cache": "/proc/none"}, "the cache /proc/none is not a folder"),
        ({"slices": "all"}, "slices must be k"),
        ({"lower": 99.0}, "percentiles must be"),
        ({"dimensions": 4}, "dimensions must be 2 or 3"),
        ({"dimensions": 3, "crop": 8}, "crop is for slices"),
        ({"data": None}, "split divides the subjects of data"),
        ({"phantom_sizes": "1/1/1"}, "phantom_sizes must be four numbers"),
        ({"data": None, "split": "paper", "crop": 8}, "crop is for data"),
    ],
)
def test_options_are_refused(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_data(options(root, **changes))
