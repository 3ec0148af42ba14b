# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""NEC: an adversarial term for the contrast, normalized edge consistency for the anatomy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...options import Options
from ..objectives import make_ngf_loss
from ..onset import Onset, inner_correlation, warmup_target
from .base import Images, Losses, System


class NEC(System):
    """Eq. (1) of Jaouen et al., ISBI 2024: L = L_GAN + lambda L_NGF, unpaired and one-sided.

    The NGF loss does not depend on the direction of an edge, so the discriminator decides whether a
    contrast is inverted. ``delay`` and ``ramp`` let it decide before the loss acts; ``delay=auto``
    waits until it has decided. ``warmup`` is the first epoch of the authors' released code, in
    which the network learns to copy its input, or, with ``warmup_target=negative``, to invert it:
    then the contrast has turned from the start, and the loss keeps it so. The L1 term of the
    warm-up fades while the NGF loss grows: if it ended at once, the generator would leave what it
    has learned before the discriminator could guide it.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.ngf_loss = make_ngf_loss(options)
        self.onset = Onset(options) if options.delay == "auto" else None
        if self.onset:
            self.observed = "source_correlation"

    def generate(self, source: Tensor, target: Tensor) -> Images:
        return {"target": self.generator(source)}

    def generator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        fake = fakes["target"]
        losses = {
            "gan": self.judge("target", fake, True),
            "ngf": self.ngf_loss(fake, source),
            "l1": F.l1_loss(fake, warmup_target(self.options, source)),
        }
        if self.onset:
            losses["source_correlation"] = inner_correlation(fake, source)
        return losses

    def observe(self, step: int, loss: Tensor) -> None:
        if self.onset:
            self.onset.observe(step, loss)

    def weights(self, step: int) -> dict[str, float]:
        options = self.options
        if self.onset:
            since = step - self.onset.step.item()
        else:
            since = step - float(options.delay) * options.steps
        if options.ramp:
            ramp = min(max(since / (options.ramp * options.steps), 0.0), 1.0)
        else:
            ramp = float(since >= 0)
        if step < options.warmup * options.steps:
            l1 = options.lambda_l1
        else:
            l1 = options.lambda_l1 * (1 - ramp) if options.warmup else 0.0
        return {
            **super().weights(step),
            "ngf": options.lambda_ngf * ramp,
            "l1": l1,
            **({"source_correlation": 0.0} if self.onset else {}),
        }
