# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Options and images so small that a training step takes milliseconds, and a folder of subjects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from examples.brats.data.images import Data, ImageSet
from examples.brats.data.options import DataOptions
from examples.brats.options import Options, make_options
from examples.brats.report.search import read_csv
from examples.brats.train.distributed import Process
from examples.brats.train.learner import Learner
from examples.brats.train.loop import Trainer

SIZE = 32
SYSTEMS = "nec", "pix2pix", "cyclegan", "cut"
SMALL = {
    "data.size": SIZE,
    "unet_channels": (4, 8),
    "unet_units": 1,
    "resnet_channels": 4,
    "resnet_blocks": 2,
    "discriminator_channels": 4,
    "discriminator_scales": 2,
    "nce_layers": (0, 4, 8, 12),
    "nce_patches": 16,
    "nce_width": 8,
    "steps": 4,
    "validate_every": 2,
    "log_every": 1,
}
TINY = {**SMALL, "data.phantom_sizes": "4/4/2/3"}
VOLUMES = {"data.dimensions": 3, "data.patch": 16}


def as_words(values: dict[str, object]) -> list[str]:
    texts = {k: ",".join(map(str, v)) if isinstance(v, tuple) else v for k, v in values.items()}
    return [f"{name}={text}" for name, text in texts.items()]


def small_options(system: str = "nec", **changes: object) -> Options:
    """Choose the smallest networks that have all parts."""
    return make_options(system, "cpu", SMALL, changes)


def random_images(count: int, seed: int) -> Tensor:
    """Make ``(count, 1, SIZE, SIZE)`` in [-1, 1], smooth enough for edges, with a background."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, SIZE // 4, SIZE // 4, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    images[..., : SIZE // 4] = -1
    return images


def random_data() -> Data:
    """Make four groups of images without any meaning."""

    def images(count: int, seed: int) -> ImageSet:
        t1, t2 = random_images(count, seed), random_images(count, seed + 1)
        names = [f"random-{seed}-{k}" for k in range(count)]
        return ImageSet(names, t1, t2, t1 > -1, None, 1.0)

    groups = [images(count, 10 * k) for k, count in enumerate((6, 5, 2, 2))]
    return Data(*groups, groups[0])


def random_volumes() -> Data:
    """Make the same of volumes, each of its own shape, with brains that fill most of them."""

    def images(count: int, seed: int) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        volumes = []
        for k in range(count):
            coarse = torch.rand(2, 1, 6, 6, 6, generator=generator) * 2 - 1
            shape = 21 + k, 24 - k, 13 + seed % 7
            t1, t2 = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")
            t1[..., :4] = t2[..., :4] = -1
            volumes.append((t1, t2, t1 > -1))
        names = [f"random-{seed}-{k}" for k in range(count)]
        return ImageSet(names, *map(list, zip(*volumes, strict=True)), None, 1.0)

    groups = [images(count, 10 * k) for k, count in enumerate((4, 3, 2, 2))]
    return Data(*groups, groups[0])


def make_trainer(
    folder: Path, system: str = "nec", resume: bool = False, **changes: object
) -> Trainer:
    options = small_options(system, out=str(folder), **changes)
    data = random_data() if options.data.dimensions == 2 else random_volumes()
    return Trainer(options, data, resume=resume)


def make_learner(system: str = "nec", **changes: object) -> Learner:
    return Learner(small_options(system, **changes), Process())


def pairs(count: int = 3) -> Iterator[tuple[Tensor, Tensor]]:
    for k in range(count):
        yield random_images(2, 2 * k), random_images(2, 2 * k + 1)


def run_file(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def lines(folder: Path) -> list[dict[str, str]]:
    return read_csv(folder / "metrics.csv")


def assert_equal(a: object, b: object) -> None:
    """Compare bits, through dictionaries and lists."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        assert_equal(list(a.values()), [b[key] for key in a])
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


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


def data_options(root: Path, **changes: Any) -> DataOptions:
    """Take slice 2 of these subjects as it is, two of them to train T2 and one in other groups."""
    given = {"data": str(root), "size": 16, "slices": "2", "split": "1/2/1/1"}
    return DataOptions(**given | changes)


def by_hand(image: np.ndarray, values: np.ndarray, lower: float = 1, upper: float = 99) -> Any:
    """Scale the image to [-1, 1] by the percentiles of ``values``."""
    low, high = np.percentile(values.astype(float), [lower, upper])
    return np.clip(2 * (image - low) / (high - low) - 1, -1, 1)
