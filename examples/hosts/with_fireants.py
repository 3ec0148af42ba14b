# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Register with FireANTs by the NGF loss, as a custom loss.

    from fireants.registration.affine import AffineRegistration

    registration = AffineRegistration(
        [4, 2, 1], [100, 50, 25], fixed, moving, loss_type="custom", custom_loss=NGF(fixed)
    )

With ``loss_type="masked_custom", custom_loss=NGF(fixed, masked=True)`` the last channel of both
images is a mask.
"""

from __future__ import annotations

import torch
from fireants.io.image import BatchedImages
from torch import Tensor

import nec_ext


class NGF(torch.nn.Module):
    """The NGF loss of the moved and the fixed image; eps and spacing follow FireANTs' pyramid.

    Args:
        fixed: the fixed images of the registration, which know their voxel size.
        eta: eps of each image as a multiple of its mean gradient.
        masked: whether the last channel is a mask.
        reduction: ``"none"`` for ``MomentsRegistration``, which reduces the losses itself.
    """

    def __init__(
        self, fixed: BatchedImages, eta: float = 0.5, masked: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.fixed, self.eta, self.masked, self.reduction = fixed, eta, masked, reduction
        self.eps: list[Tensor] = []

    def set_current_scale_and_iterations(self, scale: float, iterations: int) -> None:
        """Forget eps: images of another scale have other gradients."""
        self.eps = []

    def get_image_padding(self) -> int:
        """Return how many planes of its neighbours a part of the images needs for its gradient."""
        return 2

    def forward(self, moved: Tensor, fixed: Tensor) -> Tensor:
        mask = None
        if self.masked:
            # Without detach() the loss would fall when the mask leaves what does not match.
            mask = (moved[:, -1:] * fixed[:, -1:]).detach()
            moved, fixed = moved[:, :-1], fixed[:, :-1]
        # FireANTs keeps the outermost voxels in place and every axis at 32 voxels or more, so that
        # the spacing is not the scale times the voxel size. ITK has X first, tensors have it last.
        voxel = self.fixed.images[0].itk_image.GetSpacing()[::-1]
        sizes = zip(voxel, self.fixed.shape[2:], fixed.shape[2:], strict=True)
        spacing = [h * (n - 1) / (m - 1) for h, n, m in sizes]
        if not self.eps:
            self.eps = [
                nec_ext.estimate_eps(image, self.eta, spacing=spacing, mask=mask)
                for image in (moved, fixed)
            ]
        loss = nec_ext.ngf_loss(
            moved,
            fixed,
            eps=self.eps[0],
            target_eps=self.eps[1],
            spacing=spacing,
            mask=mask,
            reduction="none" if self.reduction == "none" else "sample",
        )
        return loss if self.reduction == "none" else loss.mean()
