# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the tests of tiles share: options, gradients to write to, and images that are read."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import Result
from inputs import Case, generator
from torch import Tensor

import nec_ext
from nec_ext import _reading, tiled

SHAPE = (9, 7, 8)
WAYS = ("in place", "through copies")


def copy_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiles be copied there and back, as to another device than that of the images."""
    for module in (tiled, _reading):
        monkeypatch.setattr(module, "is_same", lambda wanted, own: False)


def options_of(case: Case) -> dict[str, Any]:
    rng = generator("tiled")
    return {
        "eps": 0.1 + torch.rand(case.shape, generator=rng),
        "target_eps": 0.1 + torch.rand(case.shape[1:], generator=rng)[:, :1],
        "mask": torch.rand(case.shape, generator=rng, dtype=torch.float64),
        "spacing": [0.7, 1.3, 2.5][: len(case.shape) - 2],
        "weight": 1.7,
    }


def tiled_result(
    input: Tensor, target: Tensor, wanted: str = "both", dtype: Any = None, **options: Any
) -> Result:
    """Return loss and gradients, which are written over NaN."""
    gradients = {
        f"grad_{name}": torch.full_like(image, torch.nan, dtype=dtype)
        for name, image in (("input", input), ("target", target))
        if wanted in (name, "both")
    }
    loss = nec_ext.tiled.ngf_loss(input, target, **gradients, **options)
    return Result(loss, gradients.get("grad_input"), gradients.get("grad_target"))


class Slices:
    """A stand-in for a proxy or a data set: slices of stored values are read and scaled."""

    def __init__(self, stored: Any, order: str = "C", slope: float = 1.0, inter: float = 0.0):
        self._stored, self.order, self._scale = stored, order, (slope, inter)
        self.shape, self.dtype = stored.shape, stored.dtype
        self.sizes: list[tuple[int, ...]] = []  # of what was read

    def __getitem__(self, index: tuple[slice, ...]) -> Any:
        part = self._stored[index]
        self.sizes.append(part.shape)
        slope, inter = self._scale
        return part if self._scale == (1, 0) else part * slope + inter

    def whole(self) -> Any:
        return self[(slice(None),) * len(self.shape)]


def stored(seed: int, dtype: str = "int16", order: Any = "C", shape: Any = SHAPE) -> Any:
    found = np.random.default_rng(seed).integers(0, 127, shape).astype(dtype)
    return np.asarray(found, order=order)


def floats(array: Any) -> Tensor:
    """Return the values as a float32 tensor, in the same order of memory."""
    tensor = torch.from_numpy(np.asarray(array).astype("float32"))
    return tensor[(None,) * (5 - tensor.dim())]
