# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The one list of named inputs: pairs of images that a loop over voxels could get wrong."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Shape = tuple[int, ...]
Pair = tuple[Tensor, Tensor]


def generator(name: str) -> torch.Generator:
    """Make a source of random numbers on the default device that depend on a name alone.

    So that a test can run alone.
    """
    return torch.Generator(torch.get_default_device()).manual_seed(zlib.crc32(name.encode()))


def noise(shape: Shape, rng: torch.Generator) -> Pair:
    def uniform() -> Tensor:
        return 2 * torch.rand(shape, generator=rng, dtype=torch.float64) - 1

    return uniform(), uniform()


def constant(shape: Shape, rng: torch.Generator) -> Pair:
    return tuple(torch.full(shape, value, dtype=torch.float64) for value in (0.25, -0.5))


def ramp(shape: Shape, rng: torch.Generator) -> Pair:
    """Make two planes that rise in different directions, in steps that are exact in every dtype."""
    image, other = torch.zeros(2, *shape, dtype=torch.float64)
    indices = torch.meshgrid(*map(torch.arange, shape[2:]), indexing="ij")
    for k, index in enumerate(indices):
        image += index * (k + 1) / 64
        other -= index * (len(indices) - k) / 64
    return image, other


def brain(shape: Shape, rng: torch.Generator) -> Pair:
    """Draw a textured ellipsoid in a constant background, as after skull stripping, twice."""
    axes = [torch.linspace(-1, 1, size, dtype=torch.float64) for size in shape[2:]]
    radius = sum((2.2 * a) ** 2 for a in torch.meshgrid(*axes, indexing="ij")).sqrt()
    inside = radius < 1
    texture = torch.rand(shape, generator=rng, dtype=torch.float64)
    image = torch.where(inside, 0.5 * texture + 0.5 * torch.cos(3 * radius), -1.0)
    other = torch.where(
        inside, 0.4 - 0.8 * texture**2 + 0.3 * torch.rand(shape, generator=rng), -1.0
    )
    return image, other


def aligned(shape: Shape, rng: torch.Generator) -> Pair:
    """Draw registered images: gradients are parallel, the derivative is a small difference."""
    image, _ = noise(shape, rng)
    return image, 0.1 - 0.7 * image


def contiguous(image: Tensor) -> Tensor:
    return image.contiguous()


def strided(image: Tensor) -> Tensor:
    """Take every third voxel along x and every second before it, off a cache line."""
    *outer, rows, length = image.shape
    storage = image.new_full((*outer, 2 * rows, 3 * length + 1), torch.nan)
    view = storage[..., 1::2, 1::3]
    view.copy_(image)
    return view


def cropped(image: Tensor) -> Tensor:
    """Lay an image into a larger one: no row of it is aligned."""
    storage = image.new_full((*image.shape[:-1], image.shape[-1] + 2), torch.nan)
    view = storage[..., 1:-1]
    view.copy_(image)
    return view


def transposed(image: Tensor) -> Tensor:
    """Reverse the spatial axes in memory, as when an array of (x, y, z) is read."""
    order = (0, 1, *range(image.dim() - 1, 1, -1))
    return image.permute(order).contiguous().permute(order)


def channels_last(image: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return image.contiguous(memory_format=formats[image.dim()])


def expanded(image: Tensor) -> Tensor:
    """Show one channel and one row as many: stride 0 along a channel and along a spatial axis."""
    return image[:, :1, :1].expand_as(image)


Layout = Callable[[Tensor], Tensor]


class Case(NamedTuple):
    name: str
    shape: Shape
    content: Callable[[Shape, torch.Generator], Pair] = noise
    layout: Layout = contiguous
    target_layout: Layout | None = None  # None: the same

    def images(self, dtype: torch.dtype = torch.float32, other: torch.dtype | None = None) -> Pair:
        """Make the pair, the target of another dtype if one is given."""
        input, target = self.content(self.shape, generator(self.name))
        return (
            self.layout(input.to(dtype)),
            (self.target_layout or self.layout)(target.to(other or dtype)),
        )


# Small ones that most tests use: more than one sample and channel, odd sizes, no axis like another.
SMALL = [Case("noise_2d", (2, 3, 9, 7)), Case("noise_3d", (2, 2, 5, 7, 6))]

LAYOUTS = [
    *(
        Case(f"{layout.__name__}_{len(shape) - 2}d", shape, layout=layout)
        for layout in (strided, cropped, transposed, channels_last, expanded)
        for shape in ((2, 3, 9, 17), (2, 3, 5, 6, 48))
    ),
    Case("cropped_target_3d", (2, 2, 5, 6, 48), target_layout=cropped),
    Case("two_layouts_2d", (2, 3, 9, 7), layout=transposed, target_layout=channels_last),
    Case("two_layouts_3d", (2, 3, 5, 6, 7), layout=strided, target_layout=transposed),
]

# Beyond a tile's rows, beyond its 1024 voxels of a row, and deep enough for z to be cut into
# chunks.
LARGE = [
    Case("tiles_x_2d", (1, 1, 20, 2500)),
    Case("chunks_2d", (1, 2, 600, 30)),
    Case("tiles_x_3d", (1, 1, 3, 4, 2300)),
    Case("tiles_y_3d", (1, 1, 3, 700, 16)),
    Case("chunks_3d", (1, 1, 90, 18, 22)),
    Case("brain_3d", (1, 1, 32, 36, 30), brain),
]

THIN = [
    Case("thin_" + "x".join(map(str, shape)), (1, 2, *shape))
    for shape in [
        (1, 1), (1, 7), (7, 1), (2, 1), (1, 2), (2, 2), (2, 5), (5, 2), (3, 3),
        (1, 1, 1), (1, 1, 5), (1, 5, 1), (5, 1, 1), (1, 5, 6), (5, 1, 6), (5, 6, 1),
        (2, 2, 2), (2, 5, 6), (5, 2, 6), (5, 6, 2), (3, 3, 3),
    ]
]  # fmt: skip

# Axes too short for the rows of a vector: the sweep takes another axis, or joins images.
SHORT = [
    Case("short_" + "x".join(map(str, shape)), shape)
    for shape in [
        (1, 1, 3, 40, 37), (1, 1, 40, 3, 37), (1, 1, 37, 40, 3), (2, 1, 4, 5, 70),
        (1, 2, 4, 300, 5), (1, 1, 1100, 4, 5), (31, 1, 4, 6, 5), (2, 20, 3, 4, 9),
        (1, 3, 4, 5, 46), (1, 1, 300, 3), (1, 2, 3, 300), (45, 1, 6, 5), (3, 2, 9, 46),
    ]
]  # fmt: skip

# Everything that is not large.
CASES = [
    *SMALL,
    Case("constant_2d", (1, 1, 6, 9), constant),
    Case("constant_3d", (1, 1, 4, 5, 6), constant),
    Case("ramp_2d", (1, 1, 6, 9), ramp),
    Case("ramp_3d", (1, 1, 4, 5, 6), ramp),
    Case("brain_2d", (1, 2, 41, 37), brain),
    Case("aligned_2d", (1, 1, 12, 11), aligned),
    Case("aligned_3d", (1, 1, 7, 6, 8), aligned),
    Case("odd_2d", (3, 1, 31, 33)),
    Case("odd_3d", (1, 3, 11, 17, 15)),
    *THIN,
    *LAYOUTS,
]


def by_name(*names: str) -> list[Case]:
    return [case for case in [*CASES, *SHORT, *LARGE] if case.name in names]
