# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Options and images so small that a training step takes milliseconds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from examples.brats.data.images import Data, ImageSet
from examples.brats.options import Options, make_options
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
    """Write options as on a command line."""
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

    return Data(*(images(count, 10 * k) for k, count in enumerate((6, 5, 2, 2))))


def random_volumes() -> Data:
    """Make the same of volumes, each of its own shape, with brains that fill most of them."""

    def images(count: int, seed: int) -> ImageSet:
        generator = torch.Generator().manual_seed(seed)
        t1, t2, brain = [], [], []
        for k in range(count):
            coarse = torch.rand(2, 1, 6, 6, 6, generator=generator) * 2 - 1
            shape = 21 + k, 24 - k, 13 + seed % 7
            pair = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")
            pair[..., :4] = -1
            t1.append(pair[0])
            t2.append(pair[1])
            brain.append(pair[0] > -1)
        names = [f"random-{seed}-{k}" for k in range(count)]
        return ImageSet(names, t1, t2, brain, None, 1.0)

    return Data(*(images(count, 10 * k) for k, count in enumerate((4, 3, 2, 2))))


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
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
