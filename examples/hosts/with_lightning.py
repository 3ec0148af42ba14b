# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train with Lightning by the NGF loss, in mixed precision.

    lightning.Trainer(precision="bf16-mixed").fit(Synthesis(network), loader)

The loss takes the bfloat16 or float16 image that the network generates beside a float32 source,
computes in float32 and returns float32.
"""

from __future__ import annotations

import lightning
import torch
from torch import Tensor

import nec_ext


class Synthesis(lightning.LightningModule):
    """A network that generates another contrast with the edges of its input."""

    def __init__(self, network: torch.nn.Module, eps: float = 0.15, rate: float = 1e-3) -> None:
        super().__init__()
        self.network, self.rate = network, rate
        self.loss = nec_ext.NGFLoss(eps=eps)

    def training_step(self, source: Tensor, index: int) -> Tensor:
        loss = self.loss(self.network(source), source)
        self.log("ngf", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.rate)
