# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Benchmarks of options and of short rows, beside the reference with the same options."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import nec_ext

from .race import Race, steps

VOLUME, BATCH = (1, 1, 160, 192, 160), (16, 1, 256, 256)
OPTIONS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "sobel": (VOLUME, {"operator": "sobel"}),
    "forward": (VOLUME, {"operator": "forward"}),
    "quadrature": (VOLUME, {"eps_mode": "quadrature"}),
    "augmented": (VOLUME, {"eps_mode": "augmented"}),
    "signed": (VOLUME, {"form": "signed"}),
    # Not absolute, whose gradient jumps where a rounding error turns the sign.
    "signed augmented": (VOLUME, {"form": "signed", "eps_mode": "augmented"}),
    "cross": (VOLUME, {"form": "cross"}),
    "spacing": (VOLUME, {"spacing": (1.0, 0.9, 0.8)}),
    "bool mask": (VOLUME, {"mask": lambda image: image > 0.5}),
    "float32 mask": (VOLUME, {"mask": torch.rand_like}),
    "eps per voxel": (VOLUME, {"eps": lambda image: 0.1 + torch.rand_like(image)}),
    "rows of 8 voxels": ((1, 1, 500, 500, 8), {}),
    "rows of 8, patches": ((4000, 1, 8, 8, 8), {}),
    "2D sobel": (BATCH, {"operator": "sobel"}),
    "2D forward": (BATCH, {"operator": "forward"}),
    "2D sobel quadrature": (BATCH, {"operator": "sobel", "eps_mode": "quadrature"}),
    "2D bool mask": (BATCH, {"mask": lambda image: image > 0.5}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(race: Race, name: str) -> None:
    """Measure a training step with one option."""
    shape, options = OPTIONS[name]
    input, target = race.images(shape)
    options = {key: value(input) if callable(value) else value for key, value in options.items()}
    reference = nec_ext.reference.ngf_loss
    functions = {
        "fused": partial(nec_ext.ngf_loss, **options),
        "torch.compile": torch.compile(partial(reference, **options), dynamic=False),
        "eager": partial(reference, **options),
    }
    race.check(functions, exact(functions["eager"]), input, target)
    plain = {"fused, plain": nec_ext.ngf_loss}
    race.times(steps({**functions, **plain}, input, target), budget=6)


def exact(function: Any) -> Any:
    """Return the reference with its maps in float64."""
    options = {k: v.double() if isinstance(v, Tensor) else v for k, v in function.keywords.items()}
    return partial(function.func, **options)
