# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss of volumes that are too large for the memory or for the GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ._arguments import DEFAULT_EPS, IMAGE_DTYPES, Options, check_no_gradient, parse_options, shown
from ._parts import HALO, TENSORS, check_device, check_scalar_reduction, cut, sums
from ._reading import Source, as_tensor, is_same, overlap
from ._values import arithmetic_dtype, check_maps, loss_dtype, may_have_bad_values

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
    form: str = "squared",
) -> Tensor:
    """Compute :func:`nec_ext.ngf_loss` of large images, one tile of some planes after the other.

    The images may be in host memory or in a file: each tile is read, converted and taken to the
    device in its turn. The gradients may be written to a file. Tiles are cut along the axis that is
    slowest in memory: the first spatial axis of a C-contiguous volume, the last of a NIfTI file.

    Loss and gradients do not depend on the tiles, to the last bit. On the CPU they are the bits of
    :func:`nec_ext.ngf_loss` for float32 tensors of the same values in the same order of memory. Two
    cases are excepted: gradients of half types, which the plain loss rounds once more, and rows of
    less than 32 voxels, whose last bits may differ. With a mask, the mean reads it twice.

    Args:
        input: ``(B, C, H, W)`` or ``(B, C, D, H, W)``: a tensor, a numpy array (also a memory map),
            or any object with a shape and a dtype that is read by slices, as nibabel's ``dataobj``
            or a data set of h5py or zarr. Such an object with three axes ``(X, Y, Z)`` counts as
            ``(1, 1, X, Y, Z)``. The image is never copied as a whole. It holds the floating-point
            dtypes of :func:`nec_ext.ngf_loss`, or integers, which become float32 as they are read,
            after the slope and intercept of their file. A compressed file is decompressed anew for
            every tile.
        target: the source image, of the same shape. If only the target is read by slices, the tiles
            are cut along its slowest axis.
        tiles: the largest number of tiles; each has at least one plane.
        max_memory: the bytes that a tile may take, in place of ``tiles``. They count the tile with
            two more planes on each side, its gradients, and a file's numbers before their
            conversion. Default: 1 GiB.
        device: the device that computes. Default: the device of the images, where tiles that need
            no conversion are read in place.
        grad_input, grad_target: the memory for the gradient of the loss by an image: a tensor or a
            numpy array of the image's own shape and of any floating-point dtype, whose memory range
            does not overlap with those of the images. Default: the gradient is not computed.
        eps, target_eps, eps_mode, operator, spacing, weight, form: as in :func:`nec_ext.ngf_loss`.
        mask: as in :func:`nec_ext.ngf_loss`. Mask and eps may be any of the objects that an image
            may be.
        reduction: ``"mean"`` or ``"sum"``.

    Returns:
        A scalar in host memory, float64 if an image is, else float32. It has no graph: the
        gradients are in ``grad_input`` and ``grad_target``.

    Raises:
        TypeError, ValueError: as :func:`nec_ext.ngf_loss`; an image that requires a gradient; a
            gradient that does not fit its image; no tile, or memory for less than a plane.

    Example:
        >>> a, b = (numpy.load(f, mmap_mode="r")[None, None] for f in ("a.npy", "b.npy"))
        >>> g = numpy.lib.format.open_memmap("g.npy", "w+", a.dtype, a.shape[2:])[None, None]
        >>> nec_ext.tiled.ngf_loss(a, b, grad_input=g, device="cuda", max_memory=8 << 30)
        >>> t1, t2 = (nibabel.load(f).dataobj for f in ("t1.nii.gz", "t2.nii.gz"))
        >>> nec_ext.tiled.ngf_loss(t1, t2, eps=50.0, spacing=(1.0, 1.0, 2.0))

    References:
        See :func:`nec_ext.ngf_loss`.
    """
    given = dict(zip(TENSORS, (input, target, eps, target_eps, mask), strict=True))
    if target_eps is None:
        given["target_eps"] = eps
    sources: dict[str, Source] = {}
    for name, value in given.items():
        value = as_tensor(value)
        is_map = name not in ("input", "target")
        if Source.accepts(value):
            sources[name] = Source(name, value, is_map=is_map)
            given[name] = sources[name].stand_in()
        elif not is_map:
            raise TypeError(f"{name} must be a tensor or an array, got {type(value).__name__}")
    input, target, options = parse_options(
        **given,
        eps_mode=eps_mode,
        operator=operator,
        spacing=spacing,
        weight=weight,
        reduction=reduction,
        form=form,
    )
    check_scalar_reduction(reduction)
    check_no_gradient(options, "a volume in parts")
    if torch.is_grad_enabled() and (input.requires_grad or target.requires_grad):
        raise ValueError(
            "input and target must not require a gradient: "
            "detach them and pass grad_input and grad_target"
        )
    taken: list[Any] = [*sources.values()]
    gradients: list[Tensor | None] = []
    for name, value in (("input", grad_input), ("target", grad_target)):
        gradient = _check_gradient(f"grad_{name}", value, sources[name].own_shape, input.device)
        if gradient is not None and any(overlap(gradient, other) for other in taken):
            raise ValueError(
                f"the memory range of grad_{name} must not overlap with those of images, maps and "
                "the other gradient"
            )
        gradients.append(gradient)
        taken.append(gradient)
    place = _parse_device(input.device if device is None else device)
    volume = _Volume(sources, gradients, options, place)
    parts = volume.tiles(tiles, max_memory)

    voxels = float(input.numel())
    if options.mask is not None:
        voxels = volume.total(parts, volume.mask_sums)
    factor = options.weight
    if reduction == "mean":
        factor = 0.0 if voxels == 0 else factor / voxels
    values = volume.total(parts, partial(volume.sums, weight=factor))
    base, scale = options.base_and_scale
    loss = torch.tensor(
        factor * (base * voxels - scale * values),
        dtype=loss_dtype(input, target),
        device="cpu",
    )
    # A bad value in a map shows in the loss: only then are the maps searched for it.
    if options.has_maps and may_have_bad_values(loss):
        for tile in parts:
            volume.check_maps(*tile, arithmetic_dtype(loss.dtype, options))
    return loss


class _Volume:
    """Images, maps and gradients, with their axes in the order of the tiles' memory."""

    def __init__(
        self,
        sources: dict[str, Source],
        gradients: Sequence[Tensor | None],
        options: Options,
        device: torch.device,
    ) -> None:
        # A file decides on the order of the axes; without a file, the input does.
        images = [sources["input"], sources["target"]]
        first = next((image for image in images if image.is_sliced), images[0])
        order = first.order()
        for source in sources.values():
            # The ops order axes as the input's lie: planes of tiles must be planes for them too.
            source.turn(order, leads=source is images[0])
        missing = [g if g is None else (None,) * (len(order) - g.dim()) for g in gradients]
        self._gradients = [
            g if g is None else g[new].permute(order)
            for g, new in zip(gradients, missing, strict=True)
        ]
        self._sources = [sources.get(name) for name in TENSORS]
        spacing = tuple(options.spacing[k - 2] for k in order[2:])
        self._options = options._replace(spacing=spacing)
        self._device, self._count = device, first.shape[2]

    def tiles(self, tiles: int | None, max_memory: int | None) -> list[tuple[int, int]]:
        """Return the (begin, end) of all tiles."""
        if tiles is not None and max_memory is not None:
            raise ValueError("tiles and max_memory exclude each other, got both")
        for name, value in (("tiles", tiles), ("max_memory", max_memory)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
                raise TypeError(f"{name} must be an int, got {type(value).__name__}")
        if tiles is None:
            memory = DEFAULT_MEMORY if max_memory is None else int(max_memory)
            planes = self._planes_in(memory, asked=max_memory is not None)
        elif tiles < 1:
            raise ValueError(f"tiles must be at least 1, got {tiles}")
        else:
            planes = -(-self._count // int(tiles))
        for source in self._sources:
            if source is not None:
                source.expect(planes + 2 * HALO)
        begins = range(0, self._count, planes)
        return [(begin, min(begin + planes, self._count)) for begin in begins]

    def _planes_in(self, memory: int, asked: bool) -> int:
        read = [source for source in self._sources if source is not None]
        fixed, split = [
            [s for s in read if (s.shape[2] == self._count) == is_split]
            for is_split in (False, True)
        ]
        taken = sum(s.nbytes + s.read_nbytes for s in fixed)
        # Sources are read one after the other, so that the extra memory of reading is needed once.
        plane = (sum(s.nbytes for s in split) + max(s.read_nbytes for s in split)) // self._count
        taken += min(2 * HALO, self._count - 1) * plane
        own = plane + sum(_bytes(g) // self._count for g in self._gradients if g is not None)
        if asked and memory < taken + own:
            raise ValueError(
                f"max_memory must be at least {taken + own} bytes, which a plane and those around "
                f"it take, got {memory}"
            )
        return max((memory - taken) // own, 1)

    def _read(self, begin: int, end: int) -> list[Tensor | None]:
        return [s if s is None else s.planes(begin, end, self._device) for s in self._sources]

    def total(self, parts: list[tuple[int, int]], sums_of: Callable[[int, int], Tensor]) -> float:
        """Add the numbers per plane that all tiles give, in the order of the planes."""
        planes = torch.empty(self._count, dtype=torch.float64, device=self._device)
        for begin, end in parts:
            planes[begin:end] = sums_of(begin, end)
        return planes.cpu().cumsum(0)[-1].item()

    def sums(self, begin: int, end: int, weight: float) -> Tensor:
        """Return a tile's sums of ``mask * value`` per plane; write its gradients times weight."""
        first, last = max(begin - HALO, 0), min(end + HALO, self._count)
        gradients = cut(self._gradients, 2, begin, end)
        computed = [g if g is None else self._computed(g) for g in gradients]
        result = sums(
            self._read(first, last),
            self._options._replace(weight=weight),
            2,
            begin - first,
            end - first,
            computed,
            per_plane=True,
        )
        for gradient, values in zip(gradients, computed, strict=True):
            if gradient is not None and gradient is not values:
                gradient.copy_(values)  # type: ignore[arg-type]
        return result

    def _computed(self, gradient: Tensor) -> Tensor:
        """Return the tensor in which a tile's gradient is computed: itself, or one to be copied."""
        dtype = gradient.dtype
        images = [source.dtype for source in self._sources[:2] if source is not None]
        # The kernels of a GPU write float64 where an image is float64, and nowhere else.
        if self._device.type != "cpu" and dtype == torch.float64 and dtype not in images:
            dtype = torch.float32
        if dtype == gradient.dtype and is_same(self._device, gradient.device):
            return gradient
        return torch.empty(gradient.shape, dtype=dtype, device=self._device)

    def mask_sums(self, begin: int, end: int) -> Tensor:
        """Return a tile's sums of the mask per plane."""
        *others, mask = self._sources
        assert mask is not None
        # The sum of the mask needs only the shapes and dtypes of the other tensors.
        tensors = [s if s is None else s.stub(self._device, end - begin) for s in others]
        tensors.append(mask.planes(begin, end, self._device))
        return sums(tensors, self._options, 2, 0, end - begin, per_plane=True, of_mask=True)

    def check_maps(self, begin: int, end: int, dtype: torch.dtype) -> None:
        """Raise ValueError if a map has a bad value in a tile."""
        eps, target_eps, mask = self._read(begin, end)[2:]
        check_maps(self._options.with_tensors((eps, target_eps, mask)), dtype)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _parse_device(device: Any) -> torch.device:
    try:
        place = torch.device(device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"device must be the name of a device, got {shown(device)}") from None
    if place.type == "cuda":
        if (place.index or 0) >= torch.cuda.device_count():
            raise ValueError(f"device must be a GPU that is there, got {place}")
        if place.index is None:
            place = torch.device("cuda", torch.cuda.current_device())
    check_device("device", place)
    return place


def _check_gradient(
    name: str, value: Any, shape: tuple[int, ...], device: torch.device
) -> Tensor | None:
    if value is None:
        return None
    gradient = as_tensor(value)
    if not isinstance(gradient, Tensor):
        strides = f" with strides {value.strides}" if hasattr(value, "strides") else ""
        raise TypeError(
            f"{name} must be a tensor, or an array of numpy in native byte order with strides of "
            f"whole elements, none negative, got {type(value).__name__}{strides}"
        )
    if gradient.dtype not in IMAGE_DTYPES:
        raise TypeError(
            f"{name} must be float32, float64, float16 or bfloat16, got {str(gradient.dtype)[6:]}"
        )
    if gradient.shape != shape or gradient.device != device:
        raise ValueError(
            f"{name} must have the shape and device of its image, {shape} on {device}, "
            f"got {tuple(gradient.shape)} on {gradient.device}"
        )
    read_only = not isinstance(value, Tensor) and not value.flags.writeable
    if _overlaps_itself(gradient) or read_only or gradient.requires_grad:
        raise ValueError(f"{name} must be writable, every voxel on its own, without a gradient")
    return gradient


def _overlaps_itself(tensor: Tensor) -> bool:
    """Return whether an axis takes no longer steps than the faster ones reach."""
    reach = 0
    for step, n in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if n > 1 and step <= reach:
            return True
        reach += (n - 1) * step
    return False
