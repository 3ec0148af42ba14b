# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Train VoxelMorph (the torch version) by the NGF loss.

Its losses have the fixed image first, ``loss(y_true, y_pred)``. ``nec_ext.NGFLoss`` works there as
it is: the loss is the same in both orders, and the gradient goes to the image that requires it.
Only ``eps`` belongs to the first image and ``target_eps`` to the second.
"""

from __future__ import annotations

import torch
from neurite.nn.modules import SpatialGradient
from torch import Tensor
from voxelmorph.nn.models import VxmPairwise

import nec_ext


def train_step(
    model: VxmPairwise,
    optimizer: torch.optim.Optimizer,
    moving: Tensor,
    fixed: Tensor,
    similarity: nec_ext.NGFLoss,
    smoothness: float = 0.1,
) -> Tensor:
    """Take a step of the optimizer, and return the loss before it."""
    displacement, moved = model(moving, fixed, return_warped_source=True)
    loss = similarity(fixed, moved) + smoothness * SpatialGradient("l2")(displacement)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()
