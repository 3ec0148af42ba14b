# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss of volumes that do not fit: in memory, or on the GPU."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._arguments import DEFAULT_EPS, IMAGE_DTYPES, Options, check_maps, parse_options
from ._autograd import Settings
from ._parts import (
    HALO,
    Tensors,
    check_device,
    check_scalar_reduction,
    cut,
    sums,
    volume_tensors,
)

__all__ = ["ngf_loss"]

DEFAULT_MEMORY = 1 << 30  # bytes


def ngf_loss(
    input: Any,
    target: Any,
    *,
    tiles: int | None = None,
    max_memory: int | None = None,
    device: torch.device | str | None = None,
    grad_input: Any = None,
    grad_target: Any = None,
    eps: Any = DEFAULT_EPS,
    target_eps: Any = None,
    eps_mode: str = "additive",
    operator: str = "central",
    spacing: float | Sequence[float] | None = None,
    mask: Any = None,
    weight: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """:func:`nec_ext.ngf_loss` of large images, a tile of some planes after the other.

    For volumes in host memory or mapped from a file, where a tile at a time goes to a GPU, and for
    gradients that are to be written to a file. Tiles are cut along the axis that is slowest in
    memory: for a C-contiguous volume the first spatial one. Loss and gradients do not depend on the
    tiles, to the last bit, and on the CPU are those of :func:`nec_ext.ngf_loss` (whose gradients of
    half types are rounded once more, and whose last bits may differ where rows have less than 32
    voxels). With a mask, the mean reads the mask twice.

    Args:
        input: ``(B, C, H, W)`` or ``(B, C, D, H, W)``; a tensor or a numpy array, also one that is
            mapped from a file. It is never copied as a whole.
        target: the source image, of the same shape and in the same kind of memory.
        tiles: into how many the images are cut, at most; none has less than a plane.
        max_memory: instead, the bytes that a tile may take on the device, with the two planes
            around it on each side and its gradients. Default: 1 GiB.
        device: where to compute. Default: where the images are, which then are read in place.
        grad_input, grad_target: where to write the gradient of the loss by an image: a tensor or an
            array of its shape, of any floating-point dtype, that shares no memory with the images.
            Default: nowhere.
        eps, target_eps, eps_mode, operator, spacing, mask, weight: as in :func:`nec_ext.ngf_loss`.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        A scalar in host memory. float64 if an image is, else float32. It has no graph: the
        gradients are where they were asked for.

    Raises:
        TypeError, ValueError: as :func:`nec_ext.ngf_loss`; an image that requires a gradient; a
            gradient that does not fit its image; no tile, or memory for less than a plane.

    Example:
        >>> a, b = (numpy.load(f, mmap_mode="r")[None, None] for f in ("a.npy", "b.npy"))
        >>> g = numpy.lib.format.open_memmap("g.npy", "w+", a.dtype, a.shape[2:])[None, None]
        >>> nec_ext.tiled.ngf_loss(a, b, grad_input=g, device="cuda", max_memory=8 << 30)

    References:
        See :func:`nec_ext.ngf_loss`.
    """
    maps = {"eps": eps, "target_eps": target_eps, "mask": mask}
    for name, value in maps.items():
        maps[name] = _as_tensor(name, value)
        _check_dtype(name, maps[name])
    input, target, options = parse_options(
        _as_tensor("input", input),
        _as_tensor("target", target),
        **maps,
        eps_mode=eps_mode,
        operator=operator,
        spacing=spacing,
        weight=weight,
        reduction=reduction,
    )
    check_scalar_reduction(reduction)
    gradients = [
        _check_gradient("grad_input", grad_input, input),
        _check_gradient("grad_target", grad_target, target),
    ]
    tensors, settings = volume_tensors(input, target, options)
    taken = [t for t in tensors if t is not None]
    for name, gradient in zip(("grad_input", "grad_target"), gradients, strict=True):
        if gradient is None:
            continue
        if any(_overlap(gradient, t) for t in taken):
            raise ValueError(
                f"{name} must not share memory with images, maps or the other gradient"
            )
        taken.append(gradient)
    if torch.is_grad_enabled() and (input.requires_grad or target.requires_grad):
        raise ValueError(
            "input and target must not require a gradient: "
            "detach them and pass grad_input and grad_target"
        )
    place = input.device if device is None else _parse_device(device)
    # The ops keep the axis of the largest stride for the planes that they sum.
    slowest = max(range(2, input.dim()), key=input.stride)
    steps = list(settings.spacing)
    steps.insert(0, steps.pop(slowest - 2))
    volume = _Volume(
        [t if t is None else t.movedim(slowest, 2) for t in tensors],
        [g if g is None else g.movedim(slowest, 2) for g in gradients],
        settings._replace(spacing=tuple(steps)),
        place,
    )
    parts = volume.tiles(tiles, max_memory)

    voxels = float(input.numel())
    if options.mask is not None:
        voxels = _total([volume.mask_sums(*tile) for tile in parts])
    factor = options.weight
    if reduction == "mean":
        factor = 0.0 if voxels == 0 else factor / voxels
    squares = _total([volume.sums(*tile, factor) for tile in parts])
    loss = torch.tensor(
        factor * (voxels - 0.5 * squares), dtype=_ops.loss_dtype(input, target), device="cpu"
    )
    # A bad value in a map makes the loss NaN: only then is it worth looking for one.
    if options.has_maps and loss.isnan():
        for tile in parts:
            volume.check_maps(*tile, options)
    return loss


class _Volume:
    """Images, maps and gradients with the axis that is cut in front of the other spatial ones."""

    def __init__(
        self, tensors: Tensors, gradients: Tensors, settings: Settings, device: torch.device
    ) -> None:
        input = tensors[0]
        assert input is not None
        self._tensors, self._gradients, self._settings = tensors, gradients, settings
        self._device, self._count = device, input.shape[2]
        self._in_place = _is_same(device, input.device)

    def tiles(self, tiles: int | None, max_memory: int | None) -> list[tuple[int, int]]:
        """The (begin, end) of all tiles."""
        if tiles is not None and max_memory is not None:
            raise ValueError("tiles and max_memory exclude each other, got both")
        for name, value in (("tiles", tiles), ("max_memory", max_memory)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if tiles is None:
            memory = DEFAULT_MEMORY if max_memory is None else max_memory
            planes = self._planes_in(memory, asked=max_memory is not None)
        elif tiles < 1:
            raise ValueError(f"tiles must be at least 1, got {tiles}")
        else:
            planes = -(-self._count // tiles)
        begins = range(0, self._count, planes)
        return [(begin, min(begin + planes, self._count)) for begin in begins]

    def _planes_in(self, memory: int, asked: bool) -> int:
        read = [t for t in self._tensors if t is not None]
        spread = sum(_bytes(t) // self._count for t in read if t.shape[2] == self._count)
        halo = min(2 * HALO, self._count - 1)
        fixed = sum(_bytes(t) for t in read if t.shape[2] != self._count) + halo * spread
        own = spread + sum(_bytes(g) // self._count for g in self._gradients if g is not None)
        if asked and memory < fixed + own:
            raise ValueError(
                f"max_memory must be at least {fixed + own} bytes, which a plane and those around "
                f"it take, got {memory}"
            )
        return max((memory - fixed) // own, 1)

    def sums(self, begin: int, end: int, weight: float) -> Tensor:
        """Those of ``mask * t^2`` of a tile; its gradients, times weight, go where they belong."""
        settings = self._settings._replace(weight=weight)
        gradients = cut(self._gradients, 2, begin, end)
        if self._in_place:
            return sums(self._tensors, settings, 2, begin, end, gradients, per_plane=True)
        first, last = max(begin - HALO, 0), min(end + HALO, self._count)
        slab = [self._copied(t) for t in cut(self._tensors, 2, first, last)]
        computed = [
            g if g is None else torch.empty(g.shape, dtype=g.dtype, device=self._device)
            for g in gradients
        ]
        result = sums(slab, settings, 2, begin - first, end - first, computed, per_plane=True)
        for gradient, values in zip(gradients, computed, strict=True):
            if gradient is not None:
                gradient.copy_(values)  # type: ignore[arg-type]
        return result

    def mask_sums(self, begin: int, end: int) -> Tensor:
        """Those of the mask of a tile, without the weight."""
        tensors = cut(self._tensors, 2, begin, end)
        if not self._in_place:  # the sum needs no more of the others than their shape and dtype
            *others, mask = tensors
            stubs = [t if t is None else self._stub(t) for t in others]
            tensors = [*stubs, self._copied(mask)]
        return sums(tensors, self._settings, 2, 0, end - begin, per_plane=True, of_mask=True)

    def check_maps(self, begin: int, end: int, o: Options) -> None:
        """ValueError if eps is not positive or a mask is negative in a tile."""
        eps, target_eps, mask = cut(self._tensors, 2, begin, end)[2:]
        check_maps(
            o._replace(
                eps=o.eps if eps is None else eps,
                target_eps=o.target_eps if target_eps is None else target_eps,
                mask=mask,
            )
        )

    def _copied(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        return tensor.to(self._device, copy=True, memory_format=torch.contiguous_format)

    def _stub(self, tensor: Tensor) -> Tensor:
        return tensor.new_empty(1, device=self._device).expand(tensor.shape)


def _total(parts: list[Tensor]) -> float:
    """The planes of all tiles, added in order."""
    return torch.cat(parts).cpu().cumsum(0)[-1].item()


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether the memory from the first to the last element of each has a part in common."""

    def span(tensor: Tensor) -> tuple[int, int]:
        pairs = zip(tensor.shape, tensor.stride(), strict=True)
        last = sum((n - 1) * step for n, step in pairs)
        return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()

    (first, end), (other_first, other_end) = span(one), span(other)
    return first < other_end and other_first < end


def _is_same(wanted: torch.device, own: torch.device) -> bool:
    return wanted.type == own.type and wanted.index in (None, own.index)


def _parse_device(device: Any) -> torch.device:
    try:
        place = torch.device(device)
    except (TypeError, RuntimeError):
        raise ValueError(f"device must be the name of a device, got {device!r}") from None
    check_device("device", place)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device must be a GPU that is there, got {place}")
    return place


def _as_tensor(name: str, value: Any) -> Any:
    """Arrays of numpy as tensors of the same memory; anything else as it is."""
    if isinstance(value, (Tensor, Real)) or not hasattr(value, "__array_interface__"):
        return value
    with warnings.catch_warnings():  # of arrays that are not writable, to which nothing is written
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.from_numpy(value)
        except (TypeError, ValueError):  # whose sentences do not say which array
            raise TypeError(
                f"{name} must be an array of a torch dtype in native byte order, with strides of "
                f"whole elements, none negative, got {value.dtype.str} with strides {value.strides}"
            ) from None


def _check_dtype(name: str, value: Any) -> None:
    """TypeError for what the kernels do not read: it would be converted as a whole."""
    if isinstance(value, Tensor) and value.dtype not in (*IMAGE_DTYPES, torch.bool, torch.uint8):
        raise TypeError(
            f"{name} must be bool, uint8 or floating-point, got {str(value.dtype)[6:]}: "
            "to convert it would take memory for all of it"
        )


def _check_gradient(name: str, value: Any, image: Tensor) -> Tensor | None:
    if value is None:
        return None
    gradient = _as_tensor(name, value)
    if not isinstance(gradient, Tensor):
        raise TypeError(f"{name} must be a tensor or an array, got {type(value).__name__}")
    if gradient.dtype not in IMAGE_DTYPES:
        raise TypeError(
            f"{name} must be float32, float64, float16 or bfloat16, got {str(gradient.dtype)[6:]}"
        )
    if gradient.shape != image.shape or gradient.device != image.device:
        raise ValueError(
            f"{name} must have the shape and device of its image, {tuple(image.shape)} on "
            f"{image.device}, got {tuple(gradient.shape)} on {gradient.device}"
        )
    broadcast = any(
        n > 1 and step == 0 for n, step in zip(gradient.shape, gradient.stride(), strict=True)
    )
    read_only = not isinstance(value, Tensor) and not value.flags.writeable
    if broadcast or read_only or gradient.requires_grad:
        raise ValueError(f"{name} must be writable, every voxel on its own, without a gradient")
    return gradient
