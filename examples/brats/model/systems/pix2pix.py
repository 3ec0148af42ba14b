# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pix2Pix: supervised, with NEC's networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .base import Images, Losses, System


class Pix2Pix(System):
    """L = L_GAN + lambda L_1, Isola et al., CVPR 2017.

    The discriminator does not see the source image, as in the NEC paper.
    """

    paired = True

    def generate(self, source: Tensor, target: Tensor) -> Images:
        return {"target": self.generator(source)}

    def generator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        fake = fakes["target"]
        return {"gan": self.judge("target", fake, True), "l1": F.l1_loss(fake, target)}

    def weights(self, step: int) -> dict[str, float]:
        return {**super().weights(step), "l1": self.options.lambda_l1}
