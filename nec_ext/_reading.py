# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Reads images and maps from tensors, arrays and files, a tile at a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ._arguments import IMAGE_DTYPES, MAP_DTYPES, plain

# The kernels read these dtypes. All other integers become float32.
INTEGERS = {getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}


def as_tensor(value: Any) -> Any:
    """Wrap a numpy array as a tensor of the same memory; return any other value itself."""
    if isinstance(value, (Tensor, Real)) or not hasattr(value, "__array_interface__"):
        return value
    with warnings.catch_warnings():  # torch warns of read-only arrays, which are only read here
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError):  # another byte order, negative strides, or no array
            return value


class Source:
    """An image or a map that is read a tile at a time.

    Args:
        name: the name of the argument.
        value: a tensor, or an object with a shape and a dtype that is read by slices. Such an
            object with three axes counts as one image. A numpy array with three axes does not:
            its caller can add the other two.
        is_map: whether the value may be bool and may have fewer axes than the images.

    Raises:
        TypeError: the value holds neither integers nor floating-point numbers.
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
            kinds = f"{floats}, bool" if name == "mask" else floats
            raise TypeError(f"{name} must be {kinds} or an integer type, got {label}")
        self.dtype: torch.dtype = stored if stored in kept else torch.float32
        # The axis of the value for each axis of a tile; None has length 1.
        self._axes: list[int | None] = [*range(len(value.shape))]
        # One buffer for all tiles: freed ones could not be reused, because small results are
        # allocated between them.
        self._buffer: Tensor | None = None
        self._most = 0
        self._leads = False
        sliced = not isinstance(value, Tensor) and not hasattr(value, "__array_interface__")
        if sliced and not is_map and len(self._axes) == 3:
            self._axes = [None, None, *self._axes]

    @staticmethod
    def accepts(value: Any) -> bool:
        """Return whether a value is a tensor or an array of any kind."""
        return isinstance(value, Tensor) or (
            not isinstance(value, Real)
            and all(hasattr(value, name) for name in ("dtype", "shape", "__getitem__"))
            and len(value.shape) > 0
        )

    @property
    def is_sliced(self) -> bool:
        """Return whether the value can be read by slices only."""
        return not isinstance(self._value, Tensor)

    @property
    def own_shape(self) -> tuple[int, ...]:
        """Return the shape of the value itself."""
        return tuple(self._value.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of a tile of all planes."""
        return tuple(1 if k is None else self.own_shape[k] for k in self._axes)

    def stand_in(self) -> Tensor:
        """Return a tensor of the shape, dtype and device of the tiles, without their memory."""
        if isinstance(self._value, Tensor):
            if self._value.dtype == self.dtype or self._value.layout != torch.strided:
                return self._value
            return self.stub(self._value.device)
        return self.stub(torch.device("cpu"))

    def stub(self, device: torch.device, planes: int | None = None) -> Tensor:
        """Make a tensor of some planes, or of all, in the memory of one number."""
        shape = list(self.shape)
        if planes is not None:
            shape[2] = planes
        return torch.empty((), dtype=self.dtype, device=device).expand(shape)

    def order(self) -> list[int]:
        """Return the axes of a tile, the spatial ones from the slowest in memory to the fastest."""
        steps: Sequence[int] = range(len(self.own_shape), 0, -1)
        if isinstance(self._value, Tensor):
            steps = self._value.stride()
        elif getattr(self._value, "strides", None):
            steps = [abs(step) for step in self._value.strides]
        elif getattr(self._value, "order", "C") == "F":  # nibabel's proxies have it
            steps = range(len(self.own_shape))

        def step(k: int) -> int:
            axis = self._axes[k]
            assert axis is not None  # of an image
            return steps[axis]

        return [0, 1, *sorted(range(2, len(self._axes)), key=step, reverse=True)]

    def turn(self, order: Sequence[int], *, leads: bool) -> None:
        """Put the axes of tiles into an order; axes that a map lacks come first.

        Args:
            order: the axes.
            leads: whether the ops take the order of the axes from this source: then its tiles must
                lie in it.
        """
        axes = [*[None] * (len(order) - len(self._axes)), *self._axes]
        self._axes = [axes[k] for k in order]
        self._leads = leads

    def expect(self, planes: int) -> None:
        """Set the largest number of planes that a tile has."""
        self._most = planes

    def planes(self, begin: int, end: int, device: torch.device) -> Tensor:
        """Read planes along axis 2, or the one plane that is the same for all.

        They stay where they are if that is possible; else they lie in a buffer that the next call
        overwrites.
        """
        index = [slice(None)] * len(self.own_shape)
        if self._axes[2] is not None and self.shape[2] > 1:
            index[self._axes[2]] = slice(begin, end)
        part = self._value[tuple(index)]
        if self.is_sliced:
            read = _as_array(part)
            part = as_tensor(read)
            if part is read:  # another byte order or negative strides
                part = as_tensor(read.astype(str(self.dtype)[6:]))
        part = part.permute([k for k in self._axes if k is not None])
        tile: Tensor = part[tuple(None if k is None else slice(None) for k in self._axes)]
        in_order = not self._leads or _descends(tile)
        if in_order and tile.dtype == self.dtype and is_same(device, tile.device):
            return tile
        if self._buffer is None:
            shape = [n if k != 2 else min(n, self._most) for k, n in enumerate(self.shape)]
            self._buffer = torch.empty(math.prod(shape), dtype=self.dtype, device=device)
        return self._buffer[: tile.numel()].view(tile.shape).copy_(tile)

    @property
    def nbytes(self) -> int:
        """Return the bytes of a tile of all planes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def read_nbytes(self) -> int:
        """Return the bytes that reading all planes takes besides the tile."""
        if not self.is_sliced:
            return 0
        voxel = _as_array(self._value[(slice(0, 1),) * len(self.own_shape)])
        each = voxel.dtype.itemsize
        if voxel.dtype != self._value.dtype:  # three copies: stored, times slope, plus intercept
            each = self._value.dtype.itemsize + 2 * each
        if as_tensor(voxel) is voxel:  # a copy in another byte order
            each += self.dtype.itemsize
        return math.prod(self.shape) * int(each)


def _descends(tile: Tensor) -> bool:
    """Return whether the spatial axes of a tile lie from the slowest in memory to the fastest."""
    steps = [*tile.stride()[2:]]
    return steps == sorted(steps, reverse=True)


def is_same(wanted: torch.device, own: torch.device) -> bool:
    """Return whether a tensor on device ``own`` needs no copy to be on device ``wanted``."""
    return wanted.type == own.type and wanted.index in (None, own.index)


def overlap(one: Any, other: Any) -> bool:
    """Return whether the memory ranges of two tensors or arrays overlap."""
    spans = [_span(value) for value in (one, other)]
    (first, end), (other_first, other_end) = spans
    return first < other_end and other_first < end


def _span(value: Any) -> tuple[int, int]:
    """Return the first and last address of a tensor or a numpy array; (0, 0) for a file."""
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
    import numpy  # only here, because tensors do not need it

    return numpy.asarray(part)
