# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A small folder of subjects, for the tests of examples/brats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from examples.brats.data.options import DataOptions

SHAPE = (16, 16, 6)
LPS = np.diag([-1.0, -1, 1, 1])
NAMES = [f"BraTS-GLI-{k:05d}-000" for k in (3, 10, 20, 30, 40)]


def volume(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Fill a box in the middle of zeros with positive noise; of odd seeds it is a row longer."""
    rng = np.random.default_rng(seed)
    voxels = np.zeros(shape, np.int16)
    for k in range(shape[2]):
        box = slice(2 + k // 3, 14 - k // 2), slice(3, 13 + seed % 2)
        voxels[(*box, k)] = rng.integers(1, 2000, voxels[(*box, k)].shape)
    return voxels


def save(path: Path, voxels: np.ndarray, affine: np.ndarray = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def save_subjects(root: Path, shape: tuple[int, ...] = SHAPE) -> Path:
    """Write five subjects, of number k ``volume(2 * k)`` as T1 and ``volume(2 * k + 1)`` as T2."""
    for k, name in enumerate(NAMES):
        for seed, kind in ((2 * k, "t1n"), (2 * k + 1, "t2w")):
            save(root / name / f"{name}-{kind}.nii.gz", volume(seed, shape))
    (root / "README.md").write_text("no subject")
    return root


def options(root: Path, **changes: Any) -> DataOptions:
    """Take slice 2 of these subjects as it is, two of them to train T2 and one in other groups."""
    given = {"data": str(root), "size": 16, "slices": "2", "split": "1/2/1/1"}
    return DataOptions(**given | changes)


def by_hand(image: np.ndarray, values: np.ndarray, lower: float = 1, upper: float = 99) -> Any:
    """Scale the image to [-1, 1] by the percentiles of ``values``."""
    low, high = np.percentile(values.astype(float), [lower, upper])
    return np.clip(2 * (image - low) / (high - low) - 1, -1, 1)
