# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train ICON, GradICON or uniGradICON by the NGF loss, as their similarity.

    net = icon_registration.GradientICON(inner_network, NGF(eps=0.05), lmbda=1.0)

``nec_ext.NGFLoss`` itself is a similarity for them too, ``similarity(warped, image[, mask])``. This
one asks for the tag of the voxels that come from inside the image (``isInterpolated``) and takes
the others out: an edge between the image and what lies beyond it is not an edge of the anatomy.
"""

from __future__ import annotations

from typing import Any

from icon_registration.losses import SimilarityBase
from torch import Tensor

import nec_ext


class NGF(SimilarityBase):
    """The NGF loss where the warped image comes from inside; options as of ``nec_ext.NGFLoss``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(isInterpolated=True)
        self.loss = nec_ext.NGFLoss(**options)

    def __call__(self, warped: Tensor, image: Tensor, mask: Tensor | None = None) -> Tensor:
        warped, tag = warped[:, :-1], warped[:, -1:]
        inside = nec_ext.interior_mask(tag > 0.999, self.loss.operator)
        if mask is not None:
            inside = inside * (mask != 0)
        # As in their losses, every sample has the same weight.
        return self.loss(warped, image, inside, reduction="sample").mean()
