# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register two images with kornia's ImageRegistrator by the NGF loss.

kornia calls ``loss_fn(src, dst, reduction="none")`` and takes the mean over the overlap of both
images itself. It compares in both directions, so that one eps serves both images: scale them alike.
"""

from __future__ import annotations

from kornia.geometry import ImageRegistrator
from torch import Tensor

import nec_ext


def register(
    source: Tensor, target: Tensor, model: str = "similarity", eps: float = 0.02
) -> ImageRegistrator:
    """Register ``(1, 1, H, W)`` images; ``warp_src_into_dst`` of the result moves the source."""
    registrator = ImageRegistrator(
        model,
        loss_fn=nec_ext.NGFLoss(eps=eps),
        pyramid_levels=3,
        lr=5e-3,
        tolerance=1e-6,  # the default stops at once: this loss falls slower than a difference
    )
    registrator.register(source, target)
    return registrator
