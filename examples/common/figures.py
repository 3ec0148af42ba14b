# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The part of an image that a figure shows, and the eps of its fields."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from monai.transforms.utils import generate_spatial_bounding_box
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]

FIELD_EPS = (0.01, 0.05, 0.15, 0.5)  # as in figure 2 of the paper
MARGIN = 2  # pixels around the brain


class Box(NamedTuple):
    """Part of an image: its first pixel and its size along left and back."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: Array) -> Array:
        """Cut the part out of an image, as rows from front to back."""
        return image[self.x : self.x + self.width, self.y : self.y + self.height].T


def brain_box(brain: Tensor) -> Box:
    """Find the box around the brain in a mask ``(1, H, W)``, with a margin."""
    (x, y), (right, bottom) = generate_spatial_bounding_box(
        brain, margin=MARGIN, allow_smaller=True
    )
    return Box(x, y, right - x, bottom - y)
