# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train with Hugging Face Accelerate by the NGF loss, in mixed precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor

import nec_ext


def train(
    network: torch.nn.Module, loader: Iterable[Tensor], accelerator: Accelerator, eps: float = 0.15
) -> list[float]:
    """Train a network to keep the edges of its input; return the loss of each batch.

    ``Accelerator(mixed_precision="bf16")`` lets the network compute in bfloat16, and returns its
    result in float32.
    """
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    loss = nec_ext.NGFLoss(eps=eps)
    losses = []
    for source in loader:
        value = loss(network(source), source)
        accelerator.backward(value)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.item())
    return losses
