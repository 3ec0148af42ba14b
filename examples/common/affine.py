# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The error of an affine map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_error(found: Tensor, true: Tensor, inside: Tensor, spacing: Sequence[float]) -> float:
    """Compute the mean distance in mm of voxels from where they should be.

    Args:
        found: the matrix ``(1, 3, 4)`` that should undo ``true``, as ``affine_grid`` takes it.
        true: the known matrix, of the same shape.
        inside: the voxels that count, a bool mask ``(1, 1, D, H, W)``.
        spacing: voxel size in the order of the tensor.
    """
    last = torch.tensor([[[0, 0, 0, 1.0]]])
    both = torch.cat([true, last], 1) @ torch.cat([found, last], 1)
    reached, wanted = (
        F.affine_grid(matrix, list(inside.shape), align_corners=False)
        for matrix in (both[:, :3], torch.eye(3, 4)[None])
    )
    half = torch.tensor(inside.shape[2:]).flip(0) / 2 * torch.tensor(spacing).flip(0)
    return ((reached - wanted) * half).norm(dim=-1)[inside[:, 0]].mean().item()
