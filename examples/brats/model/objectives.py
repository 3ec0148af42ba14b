# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The objectives of the systems, and the pool of images that CycleGAN shows its discriminators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import nec_ext

from ..options import Options

_CRITERIA = {"bce": F.binary_cross_entropy_with_logits, "lsgan": F.mse_loss}


def adversarial_loss(logits: Sequence[Tensor], real: bool, criterion: str) -> Tensor:
    """Compute how far a discriminator's answers are from "all real" or "all fake", over all scales.

    The generator minimizes this loss of its fakes with ``real=True``, which is the non-saturating
    form of eq. (2) of the NEC paper (Goodfellow et al., 2014). MONAI's ``PatchAdversarialLoss``
    saturates for large logits and raises under CUDA's autocast.

    Args:
        logits: a map for each scale.
        real: the wanted answer.
        criterion: ``"bce"``, or ``"lsgan"`` for least squares (Mao et al., ICCV 2017).
    """
    loss = _CRITERIA[criterion]
    return torch.stack([loss(one, torch.full_like(one, float(real))) for one in logits]).mean()


def make_ngf_loss(options: Options) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the NGF loss of a generated image and its source ``(B, 1, H, W)``, eq. (3) of the paper.

    eps is in intensity per pixel. The loss computes in float32 for half types and under autocast.
    With ``ngf_scales``, which the paper does not have, it is a mean over scales.
    """
    function: Callable[..., Tensor] = nec_ext.ngf_loss
    if options.loss_backend != "fused":
        function = nec_ext.reference.ngf_loss
    if options.loss_backend == "compiled":
        function = torch.compile(function)
    names = "eps", "eps_mode", "operator", "form"
    loss = functools.partial(function, **{name: getattr(options, name) for name in names})
    if options.ngf_scales == 1:
        return loss
    return functools.partial(_mean_over_scales, loss, options.ngf_scales)


def _mean_over_scales(
    loss: Callable[[Tensor, Tensor], Tensor], scales: int, fake: Tensor, source: Tensor
) -> Tensor:
    """Average a loss over the images and their copies, each of half the size of the one before."""
    pool = F.avg_pool2d if fake.dim() == 4 else F.avg_pool3d
    losses = [loss(fake, source)]
    for _ in range(1, scales):
        fake, source = pool(fake, 2), pool(source, 2)
        losses.append(loss(fake, source))
    return torch.stack(losses).mean()


def r1_penalty(logits: Sequence[Tensor], images: Tensor) -> Tensor:
    """Compute half the mean squared derivative of the sum of the logits by a pixel.

    It is the R1 penalty of Mescheder et al., ICML 2018, per pixel, so that its weight does not
    depend on the size of the images.

    Args:
        logits: the discriminator's answers, a map for each scale.
        images: the real images to which it gave them, which require a gradient.
    """
    total = torch.stack([one.float().sum() for one in logits]).sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return gradient.square().mean() / 2


def patch_nce_loss(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Compute CUT's contrastive loss: a query has to find the key at its own position.

    This is eq. (3) of Park et al., ECCV 2020, with negatives from the same image. No gradient flows
    to the keys.

    Args:
        queries: ``(B, S, C)``, embeddings of unit length of a generated image's patches.
        keys: embeddings of the source's patches at the same positions.
        temperature: divides the cosines.
    """
    with torch.autocast(queries.device.type, enabled=False):  # a small temperature needs precision
        cosines = queries @ keys.detach().transpose(1, 2)  # (B, S, S)
        position = torch.arange(queries.shape[1], device=queries.device).expand(queries.shape[:2])
        return F.cross_entropy((cosines / temperature).flatten(0, 1), position.flatten())


class ImagePool:
    """A pool of fakes for a discriminator: once it is full, half of the fakes are from the past.

    Shrivastava et al., CVPR 2017, invented it, and CycleGAN uses it with 50 images. With a capacity
    of 0 every fake is shown as it comes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.images: list[Tensor] = []

    def show(self, fakes: Tensor) -> Tensor:
        """Return each of the images ``(B, 1, H, W)``, detached, or one from the pool instead."""
        return torch.stack([self._exchange(fake) for fake in fakes.detach()])

    def _exchange(self, fake: Tensor) -> Tensor:
        if len(self.images) < self.capacity:
            self.images.append(fake.clone())  # a view would keep its whole batch
        elif self.capacity and torch.rand(()) < 0.5:
            k = int(torch.randint(self.capacity, ()))
            fake, self.images[k] = self.images[k], fake.clone()
        return fake
