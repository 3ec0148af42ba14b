# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""CUT: every patch of the result has to be recognized as the source's patch at its place."""

from __future__ import annotations

import torch
from torch import Tensor

from ...options import Options
from ..networks import FeatureHeads, initialize
from ..objectives import patch_nce_loss
from .base import Images, Losses, System


class CUT(System):
    """L = L_GAN + lambda (L_PatchNCE(source) + L_PatchNCE(target)) / 2; Park et al., ECCV 2020.

    Layers of the generator itself, each with a small head, tell patches apart. The heads learn with
    the generator's settings, and Adam treats every weight by itself, so they share its optimizer.
    Without ``nce_identity`` only source images count, as in FastCUT.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        probe = torch.zeros(1, 1, 16, 16)
        channels = [feature.shape[1] for feature in self._features(probe)]
        heads = FeatureHeads(channels, options.nce_width)
        self.generators["heads"] = initialize(heads, options.initialization)

    def generate(self, source: Tensor, target: Tensor) -> Images:
        images = torch.cat([source, target]) if self.options.nce_identity else source
        fakes = self.generator(images)
        return {"images": images, "fakes": fakes, "target": fakes[: len(source)]}

    def generator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        queries = self._features(fakes["fakes"])
        with torch.no_grad():
            keys = self._features(fakes["images"])
        positions = [
            torch.randperm(key[0, 0].numel())[: self.options.nce_patches].to(key.device)
            for key in keys
        ]
        heads, temperature = self.generators["heads"], self.options.nce_temperature
        pairs = zip(heads(queries, positions), heads(keys, positions), strict=True)
        losses = [patch_nce_loss(query, key, temperature) for query, key in pairs]
        gan = self.judge("target", fakes["target"], True)
        return {"gan": gan, "nce": torch.stack(losses).mean()}

    def weights(self, step: int) -> dict[str, float]:
        return {**super().weights(step), "nce": self.options.lambda_nce}

    def _features(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.generator.features(images, self.options.nce_layers)
        return features
