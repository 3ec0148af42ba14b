# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The base class of all systems, which is all that the training loop depends on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ...options import Options
from ..augmentation import augmented
from ..networks import make_discriminator, make_generator
from ..objectives import ImagePool, adversarial_loss, r1_penalty

# Both are by name. Images are (B, 1, H, W), losses are scalars.
Images = dict[str, Tensor]
Losses = dict[str, Tensor]


class System(nn.Module, ABC):
    """Networks, and the losses of a step; the loop minimizes their sum, weighted by ``weights``.

    ``generators["target"]`` makes target images from source images, and
    ``discriminators["target"]`` tells them from real ones. A system adds its other networks to
    these two dictionaries. The networks of each dictionary share an optimizer.
    """

    paired = False  # whether source and target show the same slice
    discriminator_first = True  # whether the discriminators' optimizer steps first
    ngf_loss: Callable[[Tensor, Tensor], Tensor] | None = None  # if it is part of the objective
    observed: str | None = None  # the loss on which the weights of later steps depend

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.generators = nn.ModuleDict({"target": make_generator(options)})
        self.discriminators = nn.ModuleDict({"target": make_discriminator(options)})
        self.pools = {"target": ImagePool(options.pool)}

    @property
    def generator(self) -> nn.Module:
        """The network from source to target images, which is the purpose of the training."""
        return self.generators["target"]

    @abstractmethod
    def generate(self, source: Tensor, target: Tensor) -> Images:
        """Make all images that the losses of a step need.

        A discriminator has to tell the images under its own name from real ones.
        """

    @abstractmethod
    def generator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        """Compute the terms of the generators' objective, without their weights."""

    def discriminator_losses(self, source: Tensor, target: Tensor, fakes: Images) -> Losses:
        """Compute how badly the discriminators recognize real images and (detached) fakes."""
        real = {"source": source, "target": target}
        shown = {name: pool.show(fakes[name]) for name, pool in self.pools.items()}
        losses = {
            "d_real": sum_of(self.judge(name, real[name], True) for name in self.discriminators),
            "d_fake": sum_of(self.judge(name, shown[name], False) for name in self.discriminators),
        }
        if self.options.lambda_r1:
            losses["r1"] = sum_of(self._r1(name, real[name]) for name in self.discriminators)
        return losses

    def _r1(self, name: str, images: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        return r1_penalty(self.discriminators[name](images), images)

    def weights(self, step: int) -> dict[str, float]:
        """Return the weight of every loss at a step of the training, by its name."""
        options = self.options
        return {
            "gan": options.lambda_gan,
            "d_real": options.lambda_discriminator,
            "d_fake": options.lambda_discriminator,
            **({"r1": options.lambda_r1} if options.lambda_r1 else {}),
        }

    def observe(self, step: int, loss: Tensor) -> None:
        """Note the loss ``observed`` of a step, averaged over all processes."""

    def judge(self, name: str, images: Tensor, real: bool) -> Tensor:
        """Compute how far a discriminator is from taking all images for real ones, or for fakes."""
        shown = augmented(images, self.options.discriminator_augment)
        logits = self.discriminators[name](shown)
        return adversarial_loss(logits, real, self.options.adversarial)

    def pool_state(self) -> dict[str, list[Tensor]]:
        """Return the images in the pools; every process has others, unlike ``state_dict``."""
        return {name: [image.cpu() for image in pool.images] for name, pool in self.pools.items()}

    def load_pool_state(self, state: dict[str, list[Tensor]], device: torch.device) -> None:
        """Restore a ``pool_state``."""
        for name, images in state.items():
            self.pools[name].images = [image.to(device) for image in images]


def sum_of(losses: Iterable[Tensor]) -> Tensor:
    """Add up scalar losses."""
    return torch.stack(list(losses)).sum()
