# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""When NEC's loss acts: while the contrast has turned, which the images show."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.grid import BACKGROUND
from ..options import Options

RIM = 2  # pixels at the border of the head, where every contrast falls to the background
MEMORY = 0.98  # of the smoothed correlation: it is a mean of some fifty steps


class Onset(nn.Module):
    """The step since which the NGF loss acts, under ``delay=auto``.

    Without its rim, a T2 correlates negatively with its T1, while a generator starts near the
    contrast of its source. So the contrast has turned once the smoothed correlation of generated
    images with their sources is below ``delay_correlation``, and no label or T2 of the same head
    is needed to see it. If the contrast turns back, above that and above 0, the loss waits
    again: it would hold the wrong contrast as firmly as the right one. The buffers make it part of
    a checkpoint.
    """

    correlation: Tensor
    step: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.threshold, (self.least, self.most) = options.delay_correlation, options.delay_steps
        self.register_buffer("correlation", torch.tensor(1.0))  # that of a copy
        self.register_buffer("step", torch.tensor(math.inf))  # the loss waits

    def observe(self, step: int, correlation: Tensor) -> None:
        """Note the correlation of the images of a step, from 0."""
        self.correlation.lerp_(correlation.to(self.correlation), 1 - MEMORY)
        waits = self.step.isinf().item()
        turned = self.correlation < (self.threshold if waits else max(self.threshold, 0.0))
        if step + 1 < self.least or (not turned and step + 1 < self.most):
            self.step.fill_(math.inf)
        elif waits:
            self.step.fill_(step + 1)


@torch.no_grad()
def inner_correlation(fake: Tensor, source: Tensor) -> Tensor:
    """Compute Pearson's correlation in the head without its rim, averaged over ``(B, 1, ...)``."""
    pool = F.max_pool2d if source.dim() == 4 else F.max_pool3d
    outside = (source <= BACKGROUND).float()
    inside = (pool(outside, 2 * RIM + 1, stride=1, padding=RIM) == 0).flatten(1)
    count = inside.sum(1, keepdim=True).clamp(min=1)
    a, b = (
        inside * (values - (inside * values).sum(1, keepdim=True) / count)
        for values in (image.float().flatten(1) for image in (fake, source))
    )
    norm = a.norm(dim=1) * b.norm(dim=1)
    return ((a * b).sum(1) / norm.clamp(min=torch.finfo(norm.dtype).tiny)).mean()


def warmup_target(options: Options, source: Tensor) -> Tensor:
    """Return what the generator makes of a source while it warms up: a copy, or the negative.

    The negative of the head, on its own background, has the contrast of a T2 in every edge of a T1
    but those of the head itself.
    """
    if options.warmup_target == "source":
        return source
    return torch.where(source > BACKGROUND, -source, BACKGROUND)
