# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Images and maps wherever they are, of which a tile at a time becomes a tensor."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._arguments import IMAGE_DTYPES, plain

# What the kernels read as it is. Integers else become float32.
MAP_DTYPES = (*IMAGE_DTYPES, torch.bool, torch.uint8)
INTEGERS = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


def as_tensor(value: Any) -> Any:
    """An array of numpy as a tensor of the same memory where torch can; else the value itself."""
    if isinstance(value, (Tensor, Real)) or not hasattr(value, "__array_interface__"):
        return value
    with warnings.catch_warnings():  # of arrays that are not writable, to which nothing is written
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError):  # another byte order, steps backwards, no array at all
            return value


class Source:
    """An image or a map.

    Args:
        name: of the argument.
        value: a tensor, or what has a shape and a dtype and is read by slices. One of the latter
            with three axes is an image, unless it is an array of numpy, which can get the others.
        is_map: whether it may be bool, and have fewer axes than the images.

    Raises:
        TypeError: it holds neither integers nor floating-point numbers.
    """

    def __init__(self, name: str, value: Any, *, is_map: bool) -> None:
        self._value = value = plain(value)
        stored = value.dtype
        label = str(stored)[6:] if isinstance(value, Tensor) else getattr(stored, "name", stored)
        if not isinstance(stored, torch.dtype):
            stored = getattr(torch, str(label), None)
        kept = MAP_DTYPES if is_map else IMAGE_DTYPES
        if stored not in kept and stored not in INTEGERS:
            floats = ", ".join(str(dtype)[6:] for dtype in IMAGE_DTYPES)
            raise TypeError(
                f"{name} must be {floats}{', bool' * is_map} or an integer type, got {label}"
            )
        self.dtype: torch.dtype = stored if stored in kept else torch.float32
        # The axis of the value for each axis of a tile; None has length 1.
        self._axes: list[int | None] = [*range(len(value.shape))]
        # Allocated once for all tiles: small results between them would keep freed ones from use.
        self._buffer: Tensor | None = None
        self._most = 0
        sliced = not isinstance(value, Tensor) and not hasattr(value, "__array_interface__")
        if sliced and not is_map and len(self._axes) == 3:
            self._axes = [None, None, *self._axes]

    @staticmethod
    def accepts(value: Any) -> bool:
        """Whether it is a tensor or an array of any kind."""
        return isinstance(value, Tensor) or (
            not isinstance(value, Real)
            and all(hasattr(value, name) for name in ("dtype", "shape", "__getitem__"))
            and len(value.shape) > 0
        )

    @property
    def is_sliced(self) -> bool:
        """Whether nothing but slicing knows how it is read."""
        return not isinstance(self._value, Tensor)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """That of the value."""
        return tuple(self._value.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a tile of all planes."""
        return tuple(1 if k is None else self.own_shape[k] for k in self._axes)

    def stand_in(self) -> Tensor:
        """The tensor itself, or one of its shape, dtype and device without its memory."""
        if isinstance(self._value, Tensor):
            if self._value.dtype == self.dtype or self._value.layout != torch.strided:
                return self._value
            return self.stub(self._value.device)
        return self.stub(torch.device("cpu"))

    def stub(self, device: torch.device, planes: int | None = None) -> Tensor:
        """A tensor of some planes, or of all, in the memory of one number."""
        shape = list(self.shape)
        if planes is not None:
            shape[2] = planes
        return torch.empty((), dtype=self.dtype, device=device).expand(shape)

    def order(self) -> list[int]:
        """The axes of a tile, the spatial ones from the slowest in memory to the fastest."""
        steps: Sequence[int] = range(len(self.own_shape), 0, -1)
        if isinstance(self._value, Tensor):
            steps = self._value.stride()
        elif getattr(self._value, "strides", None):
            steps = [abs(step) for step in self._value.strides]
        elif getattr(self._value, "order", "C") == "F":  # as nibabel's proxies say it
            steps = range(len(self.own_shape))

        def step(k: int) -> int:
            axis = self._axes[k]
            assert axis is not None  # of an image
            return steps[axis]

        return [0, 1, *sorted(range(2, len(self._axes)), key=step, reverse=True)]

    def turn(self, order: Sequence[int], *, in_place: bool) -> None:
        """Puts the axes of tiles in this order; those that a map lacks come first.

        Without ``in_place``, tiles lie in memory in this order too.
        """
        axes = [*[None] * (len(order) - len(self._axes)), *self._axes]
        self._axes = [axes[k] for k in order]
        self._in_place = in_place

    def expect(self, planes: int) -> None:
        """Says how many planes a tile has at most."""
        self._most = planes

    def planes(self, begin: int, end: int, device: torch.device) -> Tensor:
        """Planes along axis 2, or the one that is the same for all; in place where it can be.

        Else in memory that the next call takes again.
        """
        index = [slice(None)] * len(self.own_shape)
        if self._axes[2] is not None and self.shape[2] > 1:
            index[self._axes[2]] = slice(begin, end)
        part = self._value[tuple(index)]
        if self.is_sliced:
            read = _as_array(part)
            part = as_tensor(read)
            if part is read:  # another byte order or steps backwards
                part = as_tensor(read.astype(str(self.dtype)[6:]))
        part = part.permute([k for k in self._axes if k is not None])
        tile: Tensor = part[tuple(None if k is None else slice(None) for k in self._axes)]
        if self._in_place and tile.dtype == self.dtype and is_same(device, tile.device):
            return tile
        if self._buffer is None:
            shape = [n if k != 2 else min(n, self._most) for k, n in enumerate(self.shape)]
            self._buffer = torch.empty(math.prod(shape), dtype=self.dtype, device=device)
        return self._buffer[: tile.numel()].view(tile.shape).copy_(tile)

    @property
    def nbytes(self) -> int:
        """Of a tile of all planes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def read_nbytes(self) -> int:
        """What reading all planes takes besides."""
        if not self.is_sliced:
            return 0
        voxel = _as_array(self._value[(slice(0, 1),) * len(self.own_shape)])
        each = voxel.dtype.itemsize
        if voxel.dtype != self._value.dtype:  # as stored, then times the slope, plus the intercept
            each = self._value.dtype.itemsize + 2 * each
        if as_tensor(voxel) is voxel:  # which is converted on the way
            each += self.dtype.itemsize
        return math.prod(self.shape) * int(each)


def is_same(wanted: torch.device, own: torch.device) -> bool:
    """Whether a tensor on its own device is where it is wanted."""
    return wanted.type == own.type and wanted.index in (None, own.index)


def overlap(one: Any, other: Any) -> bool:
    """Whether the memory from the first to the last element of each has a part in common."""
    spans = [_span(value) for value in (one, other)]
    (first, end), (other_first, other_end) = spans
    return first < other_end and other_first < end


def _span(value: Any) -> tuple[int, int]:
    """The bytes of a tensor or an array of numpy; none of what is elsewhere."""
    if isinstance(value, Source):
        value = value._value
    if isinstance(value, Tensor):
        first, size = value.data_ptr(), value.element_size()
        steps = [size * step for step in value.stride()]
    elif hasattr(value, "__array_interface__"):
        first, size = value.__array_interface__["data"][0], value.dtype.itemsize
        steps = value.strides
    else:
        return 0, 0
    reach = [(n - 1) * step for n, step in zip(value.shape, steps, strict=True)]
    return first + sum(min(r, 0) for r in reach), first + sum(max(r, 0) for r in reach) + size


def _as_array(part: Any) -> Any:
    import numpy  # here: what is read by slices becomes one of its arrays, tensors need none

    return numpy.asarray(part)
