# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Images with short axes, whichever axis then makes the rows of the sweep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import EPS_MODES, OPERATORS, assert_same_bits, check_fused, evaluate, threads
from inputs import Case, Layout, channels_last, contiguous, generator, strided, transposed

import nec_ext

SHAPES = [
    (1, 1, 3, 40, 37), (1, 1, 40, 3, 37), (1, 1, 37, 40, 3),
    (2, 1, 4, 5, 70), (1, 2, 4, 300, 5), (1, 1, 1100, 4, 5),
    (31, 1, 4, 6, 5), (2, 20, 3, 4, 9), (1, 3, 4, 5, 46),
    (1, 1, 300, 3), (1, 2, 3, 300), (45, 1, 6, 5), (3, 2, 9, 46),
]  # fmt: skip
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def options_of(shape: tuple[int, ...]) -> dict[str, Any]:
    rng = generator(f"rows {shape}")
    return {
        "spacing": (0.7, 1.3, 2.5)[: len(shape) - 2],
        "mask": torch.rand(shape, generator=rng),
        "eps": 0.1 + torch.rand((shape[0], *(1 for _ in shape[1:])), generator=rng),
        "target_eps": 0.1 + torch.rand(shape[2:], generator=rng),
    }


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("eps_mode", EPS_MODES)
@pytest.mark.parametrize("operator", OPERATORS)
@shapes
def test_reference(shape: tuple[int, ...], operator: str, eps_mode: str, reduction: str) -> None:
    images = Case("rows", shape).images()
    options = options_of(shape) if operator != "central" or reduction == "none" else {}
    check_fused(*images, operator=operator, eps_mode=eps_mode, reduction=reduction, **options)


@pytest.mark.parametrize("layout", [transposed, channels_last, strided])
@pytest.mark.parametrize("target_layout", [contiguous, None], ids=["contiguous", "same"])
@shapes
def test_layouts(shape: tuple[int, ...], layout: Layout, target_layout: Layout | None) -> None:
    check_fused(*Case("rows", shape, layout=layout, target_layout=target_layout).images())


@shapes
def test_threads(shape: tuple[int, ...]) -> None:
    images = Case("rows", (4 * shape[0], *shape[1:-1], 3 * shape[-1])).images()
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(evaluate(nec_ext.ngf_loss, *images, 1.0, operator="sobel"))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e25])
def test_a_bad_image_leaves_the_others_alone(bad: float) -> None:
    """They lie beside it in a row."""
    input, target = Case("rows", (20, 1, 4, 5, 6)).images()
    expected = evaluate(nec_ext.ngf_loss, input, target, 1.0, reduction="none")
    others = torch.arange(20) != 7
    input[7] = bad
    found = evaluate(nec_ext.ngf_loss, input, target, 1.0, reduction="none")
    for one, other in zip(found.tensors, expected.tensors, strict=True):
        torch.testing.assert_close(one[others], other[others], rtol=1e-5, atol=1e-6)
