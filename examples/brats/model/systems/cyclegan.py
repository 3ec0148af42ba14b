# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""CycleGAN: two generators that have to undo each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...options import Options
from ..networks import make_discriminator, make_generator
from ..objectives import ImagePool
from .base import Images, Losses, System, sum_of


class CycleGAN(System):
    """L = L_GAN + lambda L_cycle + lambda / 2 L_identity, both ways; Zhu et al., ICCV 2017."""

    discriminator_first = False

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.generators["source"] = make_generator(options)
        self.discriminators["source"] = make_discriminator(options)
        self.pools["source"] = ImagePool(options.pool)

    def generate(self, source: Tensor, target: Tensor) -> Images:
        to_target, to_source = self.generators["target"], self.generators["source"]
        fake_target, same_target = to_target(torch.cat([source, target])).chunk(2)
        fake_source, same_source = to_source(torch.cat([target, source])).chunk(2)
        return {
            "target": fake_target,
            "source": fake_source,
            "same_target": same_target,
            "same_source": same_source,
            "cycle_target": to_target(fake_source),
            "cycle_source": to_source(fake_target),
        }

    def generator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        def distance(kind: str) -> Tensor:
            to_target = F.l1_loss(fakes[f"{kind}_target"], target)
            return to_target + F.l1_loss(fakes[f"{kind}_source"], source)

        return {
            "gan": sum_of(self.judge(name, fakes[name], True) for name in self.discriminators),
            "cycle": distance("cycle"),
            "identity": distance("same"),
        }

    def weights(self, step: int) -> dict[str, float]:
        options = self.options
        return {
            **super().weights(step),
            "cycle": options.lambda_cycle,
            "identity": options.lambda_cycle * options.lambda_identity,
        }
