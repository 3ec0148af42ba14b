# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train with MONAI by the NGF loss, by its SupervisedTrainer.

``nec_ext.NGFLoss`` is a loss of MONAI's kind and takes a MetaTensor. It goes into a
``MultiScaleLoss`` as any other: ``MultiScaleLoss(nec_ext.NGFLoss(eps=0.15), scales=[0, 1, 2])``.

Do not wrap it in a ``MaskedLoss``. That multiplies both images by the mask, so that its border
becomes an edge of both, and the perfect agreement there hides what the images do. Give the mask to
the loss instead, as here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import Tensor

import nec_ext


def masked_batch(
    batch: dict[str, Tensor], device: torch.device, non_blocking: bool = False, **kwargs: Any
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Give the trainer the input, and as the target what the loss wants: an image and a mask."""
    image, label, mask = (
        batch[key].to(device, non_blocking=non_blocking, **kwargs)
        for key in ("image", "label", "mask")
    )
    return image, (label, mask)


def make_trainer(
    network: torch.nn.Module,
    batches: Iterable[dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    eps: float = 0.15,
    epochs: int = 1,
) -> SupervisedTrainer:
    """Make a trainer whose batches have an image, a label and a mask."""
    loss = nec_ext.NGFLoss(eps=eps)
    return SupervisedTrainer(
        device="cuda" if torch.cuda.is_available() else "cpu",
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=lambda generated, target: loss(generated, *target),
        prepare_batch=masked_batch,
    )
