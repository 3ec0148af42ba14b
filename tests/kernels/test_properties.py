# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Shapes, strides, dtypes and options drawn at random, all at once."""

from typing import Any

import torch
from helpers import DTYPES, EPS_MODES, OPERATORS, REDUCTIONS, WANTED, check_fused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

# The same examples everywhere and every time: a failure in CI is one that can be repeated.
bounded = settings(max_examples=750, derandomize=True, database=None, deadline=None)
Draw = st.DrawFn


@st.composite
def shapes(draw: Draw) -> tuple[int, ...]:
    ndim = draw(st.sampled_from([2, 3]))
    space = [draw(st.integers(1, 9)) for _ in range(ndim)]
    # Now and then one axis beyond a vector, a slab of rows, or a row's padding.
    if draw(st.integers(0, 3)) == 0:
        space[draw(st.integers(0, ndim - 1))] = draw(st.integers(15, 70))
    return draw(st.integers(1, 3)), draw(st.integers(1, 3)), *space


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(shape, generator=rng, dtype=torch.float64) - 1


@st.composite
def laid_out(draw: Draw, values: Tensor) -> Tensor:
    """Draw a memory for values: axes in any order, some with gaps, at any offset."""
    order = draw(st.permutations(range(values.dim())))
    offset = draw(st.integers(0, 3))
    strides, length = [0] * values.dim(), 1
    for axis in reversed(order):
        strides[axis] = length * draw(st.sampled_from([1, 1, 1, 2, 3]))
        length = strides[axis] * values.shape[axis]
    poison = torch.nan if values.is_floating_point() else 1
    storage = torch.full((offset + length + 8,), poison, dtype=values.dtype)
    return storage.as_strided(values.shape, strides, offset).copy_(values)


@st.composite
def images(draw: Draw, shape: tuple[int, ...], parity: int) -> Tensor:
    """Draw an image, some of whose axes may be expanded; those of other parity differ from it.

    The gradient of equal images is a small difference of large numbers, in any formulation.
    """
    sizes = tuple(1 if draw(st.integers(0, 15)) == 0 else size for size in shape)
    values = uniform(sizes, 2 * draw(st.integers(0, 2**31)) + parity)
    return draw(laid_out(values.to(draw(st.sampled_from(DTYPES))))).expand(shape)


@st.composite
def broadcastable(
    draw: Draw, shape: tuple[int, ...], dtypes: list[torch.dtype], low: float
) -> Tensor:
    """Draw a map over some of the axes, in [low, low + 1)."""
    first = draw(st.integers(0, len(shape)))
    sizes = tuple(draw(st.sampled_from([1, size, size])) for size in shape[first:])
    values = low + (uniform(sizes, draw(st.integers(0, 2**31))) + 1) / 2
    dtype = draw(st.sampled_from(dtypes))
    if not dtype.is_floating_point:
        values = (values * 3 + 1) if low else (values * 3)
    return draw(laid_out(values.to(dtype)))


@st.composite
def problems(draw: Draw) -> dict[str, Any]:
    shape = draw(shapes())
    maps = st.one_of(st.floats(0.05, 2), broadcastable(shape, [*DTYPES, torch.int64], 0.05))
    masks = broadcastable(shape, [*DTYPES, torch.bool, torch.uint8, torch.int64], 0.0)
    per_axis = [st.floats(0.25, 4)] * (len(shape) - 2)
    spacings = st.tuples(*per_axis), st.tuples(*per_axis).map(list), st.integers(1, 3)
    return {
        "input": draw(images(shape, 0)),
        "target": draw(images(shape, 1)),
        "wanted": draw(st.sampled_from(WANTED)),
        "eps": draw(maps),
        "target_eps": draw(st.one_of(st.none(), maps)),
        "eps_mode": draw(st.sampled_from(EPS_MODES)),
        "operator": draw(st.sampled_from(OPERATORS)),
        "spacing": draw(st.one_of(st.none(), st.floats(0.25, 4), *spacings)),
        "mask": draw(st.one_of(st.none(), masks)),
        "weight": draw(st.sampled_from([1, 1.0, -0.3, 2.5, 1e-3, 0.0])),
        "reduction": draw(st.sampled_from(REDUCTIONS)),
    }


@bounded
@given(problems())
def test_fused_is_the_reference(problem: dict[str, Any]) -> None:
    check_fused(**problem)
