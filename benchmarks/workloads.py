# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the loss is used for: whole training steps, with any loss in its place.

A step frees its gradients, so that only parameters, states of the optimizers and images outlive it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from monai.losses import DiffusionLoss
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from examples.brats.model.networks import PyramidDiscriminator
from examples.brats.model.objectives import adversarial_loss
from examples.common.measure import LossFunction

NGF_WEIGHT = 3.0  # what the paper's weight of 1 becomes with the additive form of the loss
SMOOTHNESS_WEIGHT = 1.0
LAYERS = 3  # of the discriminators


class Workload(ABC):
    """What all workloads have.

    Attributes:
        images: of the shape in which the loss gets its own two.
        what: a step in one sentence.
    """

    images: tuple[Tensor, Tensor]
    optimizers: tuple[Optimizer, ...]
    what: str

    @abstractmethod
    def step(self, function: LossFunction) -> tuple[Tensor, ...]:
        """One whole training step; returns its losses."""

    def lasting(self) -> list[Tensor]:
        """What is there before a step and after it."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        states = [state for optimizer in self.optimizers for state in optimizer.state.values()]
        return [
            *self.images,
            *(parameter for group in groups for parameter in group["params"]),
            *(moment for state in states for moment in state.values()),
        ]


class Synthesis(Workload):
    """NEC: a generator takes its contrast from a discriminator and its anatomy from the loss.

    Args:
        generator, discriminator: of images with one channel.
        size: of the images. They are noise: no time depends on what they show.
        device: of all of it.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: PyramidDiscriminator,
        size: Sequence[int],
        device: str,
    ) -> None:
        self.generator = generator.to(device)
        self.discriminator = discriminator.to(device)
        source, target = (2 * torch.rand(1, 1, *size, device=device) - 1 for _ in range(2))
        self.images = source, target
        self.optimizers = tuple(
            Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.what = (
            f"NEC on noise: Adam steps of a MONAI UNet of {millions(generator.parameters())} "
            f"parameters, by the loss and by {len(discriminator.scales)} PatchDiscriminators of "
            f"{millions(discriminator.parameters())} together, and of these."
        )

    def step(self, function: LossFunction) -> tuple[Tensor, Tensor]:
        """The losses of generator and discriminator."""
        fake, loss = self.generator_step(function)
        return loss, self.discriminator_step(fake)

    def generator_step(self, function: LossFunction) -> tuple[Tensor, Tensor]:
        """The generated image and the generator's loss."""
        source, _ = self.images
        self.discriminator.requires_grad_(False)
        fake = self.generator(source)
        adversarial = adversarial_loss(self.discriminator(fake), True, "bce")
        loss = NGF_WEIGHT * function(fake, source) + adversarial
        loss.backward()
        self.discriminator.requires_grad_(True)
        update(self.optimizers[0])
        return fake.detach(), loss.detach()

    def discriminator_step(self, fake: Tensor) -> Tensor:
        _, target = self.images
        real_loss = adversarial_loss(self.discriminator(target), True, "bce")
        fake_loss = adversarial_loss(self.discriminator(fake), False, "bce")
        loss = 0.5 * (real_loss + fake_loss)
        loss.backward()
        update(self.optimizers[1])
        return loss.detach()


class Registration(Workload):
    """Deformable registration: a displacement per voxel, warp, the loss and a regularizer.

    The warp is not MONAI's, which takes twice the time and memory for the same.

    Args:
        name: what the images are.
        fixed, moving: of one shape.
    """

    def __init__(self, name: str, fixed: Tensor, moving: Tensor) -> None:
        self.images = fixed, moving
        dims, size = fixed.dim() - 2, fixed.shape[2:]
        eye = torch.eye(dims, dims + 1, dtype=fixed.dtype, device=fixed.device)
        self.identity = F.affine_grid(eye[None], list(fixed.shape), align_corners=True)
        # In voxels. The last axis comes first, as grid_sample has it.
        self.displacement = nn.Parameter(fixed.new_zeros(1, dims, *size))
        self.per_voxel = fixed.new_tensor([2 / (n - 1) for n in reversed(size)])
        self.smoothness = DiffusionLoss()
        self.optimizers = (Adam([self.displacement], lr=0.1),)
        self.what = (
            f"Registration of {name}: Adam step of a displacement field of "
            f"{millions([self.displacement])} parameters by the loss and MONAI's DiffusionLoss."
        )

    def warped(self) -> Tensor:
        """The moving image where the displacement points."""
        grid = self.identity + self.displacement.movedim(1, -1) * self.per_voxel
        return F.grid_sample(self.images[1], grid, padding_mode="border", align_corners=True)

    def step(self, function: LossFunction) -> tuple[Tensor]:
        loss = function(self.warped(), self.images[0])
        loss = loss + SMOOTHNESS_WEIGHT * self.smoothness(self.displacement)
        loss.backward()
        update(self.optimizers[0])
        return (loss.detach(),)

    def lasting(self) -> list[Tensor]:
        return [*super().lasting(), self.identity]


def paper_2d(device: str) -> Synthesis:
    """The networks and the image size of the paper."""
    channels = (64, 128, 256, *(512,) * 5)
    generator = UNet(2, 1, 1, channels, strides=(2,) * 7, num_res_units=9)
    return Synthesis(generator, PyramidDiscriminator(2, 3, LAYERS, 64), (256, 256), device)


def unet_3d(device: str, edge: int) -> Synthesis:
    """Patches of a volume, of an edge that 16 divides."""
    generator = UNet(3, 1, 1, (32, 64, 128, 256, 320), strides=(2,) * 4, num_res_units=2)
    return Synthesis(generator, PyramidDiscriminator(3, 2, LAYERS, 32), (edge,) * 3, device)


def tiny(device: str, dims: int, edge: int) -> Synthesis:
    """The same so small that it runs in a moment, for edges of at least 16."""
    generator = UNet(dims, 1, 1, (4, 8), strides=(2,), num_res_units=1)
    return Synthesis(generator, PyramidDiscriminator(dims, 2, LAYERS, 4), (edge,) * dims, device)


def update(optimizer: Optimizer) -> None:
    optimizer.step()
    optimizer.zero_grad()


def millions(tensors: Iterable[Tensor]) -> str:
    return f"{sum(tensor.numel() for tensor in tensors) / 1e6:.2f} M"
