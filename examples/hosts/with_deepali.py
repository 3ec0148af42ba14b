# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register with deepali by the NGF loss, a ``PairwiseImageLoss``."""

from __future__ import annotations

from typing import Any

from deepali.core.grid import Grid
from deepali.losses import PairwiseImageLoss
from torch import Tensor

import nec_ext


class NGF(PairwiseImageLoss):
    """The NGF loss of images on a grid; options as of ``nec_ext.NGFLoss``.

    Args:
        grid: gives the spacing. A pyramid has a grid, and so a loss, for each level.
    """

    def __init__(self, grid: Grid, **options: Any) -> None:
        super().__init__()
        # A grid has X first, a tensor has it last.
        self.loss = nec_ext.NGFLoss(spacing=grid.spacing().flip(0).tolist(), **options)

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.loss(source, target, mask)
