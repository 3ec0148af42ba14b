# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Generators, discriminators and CUT's feature heads, made from MONAI's blocks where it has them.

U-Net and discriminators work on slices ``(B, 1, H, W)`` and volumes ``(B, 1, D, H, W)``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers import Pool, SkipConnection
from monai.networks.nets import PatchDiscriminator, UNet
from monai.networks.nets.unet import CheckpointUNet
from monai.networks.utils import normal_init
from torch import Tensor, nn

from ..data.grid import BACKGROUND
from ..options import Options

INITIAL_SCALE = 0.02  # the standard deviation of normal weights, and the gain of Xavier's


def make_generator(options: Options) -> nn.Module:
    """Make a network that maps images to images of the same shape."""
    tanh = options.output != "none"
    if options.generator == "resnet":
        network: nn.Module = ResNetGenerator(
            options.resnet_channels, options.resnet_blocks, antialias=options.antialias, tanh=tanh
        )
    else:
        # Eight levels need 256 pixels: a level of one pixel has no instance statistics.
        levels = min(len(options.unet_channels), int(math.log2(options.data.shape[0])))
        network = (CheckpointUNet if options.checkpointing else UNet)(
            spatial_dims=options.data.dimensions,
            in_channels=1,
            out_channels=1,
            channels=options.unet_channels[:levels],
            strides=(2,) * (levels - 1),
            num_res_units=options.unet_units,
        )
        if tanh:
            network = nn.Sequential(network, nn.Tanh())
    initialize(network, options.initialization)
    return InHead(network) if options.output == "head" else network


class InHead(nn.Module):
    """A generator that leaves the background as it is in its source."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return torch.where(image > BACKGROUND, self.network(image), BACKGROUND)

    def features(self, image: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the outputs of these layers of the network, for CUT."""
        features: list[Tensor] = self.network.features(image, layers)
        return features


def make_discriminator(options: Options) -> nn.Module:
    """Make a network that maps images to a list of logits ``(B, 1, ...)``, one for each scale."""
    network = PyramidDiscriminator(
        options.data.dimensions,
        options.discriminator_scales,
        options.discriminator_layers,
        options.discriminator_channels,
        "INSTANCE" if options.discriminator_norm == "instance" else None,
    )
    if options.antialias:
        _antialias(network)
    initialize(network, options.initialization)
    if options.discriminator_norm == "spectral":  # Miyato et al., ICLR 2018
        for module in list(network.modules()):
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                nn.utils.parametrizations.spectral_norm(module)
    return network


def check_size(options: Options) -> None:
    """Raise ValueError with one sentence if the networks cannot take the data's images."""
    shape = options.data.shape
    try:
        with torch.device("meta"):  # which computes shapes without numbers
            image = torch.empty(1, 1, *shape)
            fake = make_generator(options)(image)
            make_discriminator(options)(image)
    except (RuntimeError, ValueError, AssertionError) as error:
        size, reason = "x".join(map(str, shape)), " ".join(str(error).split())
        raise ValueError(f"the networks cannot take images of {size}: {reason}") from error
    if fake.shape != image.shape:
        raise ValueError(f"the ResNet needs a data.size that is a multiple of 4, got {shape[0]}")


def initialize(network: nn.Module, how: str) -> nn.Module:
    """Draw the weights again, or, with ``"default"``, leave those that PyTorch and MONAI drew."""
    if how == "normal":
        network.apply(functools.partial(normal_init, std=INITIAL_SCALE))
    elif how == "xavier":
        xavier = functools.partial(normal_init, std=INITIAL_SCALE, normal_func=_xavier)
        network.apply(xavier)
    return network


def _xavier(weight: Tensor, _mean: float, gain: float) -> Tensor:
    return nn.init.xavier_normal_(weight, gain)


# ------------------------------------------------------------------------------------------------
# Discriminators
# ------------------------------------------------------------------------------------------------


class PyramidDiscriminator(nn.Module):
    """A PatchGAN at each of several scales, whose copies of the image get smaller by half.

    The discriminator of the NEC paper has 3 scales of 3 convolutions, each of which sees 16x16
    pixels of its copy. One scale of 5 is the 70x70 PatchGAN of Pix2Pix, CycleGAN and CUT.
    """

    def __init__(
        self, dimensions: int, scales: int, layers: int, channels: int, norm: str | None
    ) -> None:
        super().__init__()
        self.downsample = Pool["AVG", dimensions](3, stride=2, padding=1, count_include_pad=False)
        self.scales = nn.ModuleList(
            PatchDiscriminator(
                spatial_dims=dimensions,
                channels=channels,
                in_channels=1,
                num_layers_d=layers - 2,  # beside the first and the last convolution
                norm=norm,
            )
            for _ in range(scales)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        logits = []
        for k, scale in enumerate(self.scales):
            image = self.downsample(image) if k else image
            logits.append(scale(image)[-1])  # the outputs before are features of the layers
        return logits


def _antialias(discriminator: nn.Module) -> None:
    """Let the strided convolutions slide by one pixel, and halve the image by a blur instead."""
    for module in discriminator.modules():
        if isinstance(module, Convolution) and module.conv.stride == (2, 2):
            module.conv.stride = (1, 1)
            module.append(Blur(module.conv.out_channels))


# ------------------------------------------------------------------------------------------------
# CycleGAN and CUT
# ------------------------------------------------------------------------------------------------


class Blur(nn.Module):
    """A filter [1, 2, 1] / 4 along both axes that keeps every other pixel; Zhang, ICML 2019."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = torch.outer(line, line).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel, stride=2, groups=len(self.kernel))


class ResNetGenerator(nn.Sequential):
    """The ResNet of CycleGAN, after Johnson et al., ECCV 2016, and of CUT, by its ``antialias``.

    A 7x7 convolution, two that halve the image, residual blocks, two that double it, 7x7: c7s1-64,
    d128, d256, R256 x 9, u128, u64, c7s1-1 in the appendix of Zhu et al., ICCV 2017. CUT counts
    layers as this sequence does: 0 is the padded image, 4 and 8 are the convolutions before the
    image is halved, 12 and 16 are residual blocks (Park et al., ECCV 2020).
    """

    def __init__(
        self, channels: int = 64, blocks: int = 9, *, antialias: bool = False, tanh: bool = True
    ) -> None:
        c = channels
        super().__init__(
            *(nn.ReflectionPad2d(3), nn.Conv2d(1, c, 7), *_norm(c)),
            *_down(c, antialias),
            *_down(2 * c, antialias),
            *(_residual(4 * c) for _ in range(blocks)),
            *_up(4 * c, antialias),
            *_up(2 * c, antialias),
            *(nn.ReflectionPad2d(3), nn.Conv2d(c, 1, 7)),
        )
        if tanh:
            self.append(nn.Tanh())

    def features(self, image: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the outputs ``(B, C, h, w)`` of these layers, which are in ascending order."""
        outputs = []
        for k, layer in enumerate(self):
            image = layer(image)
            if k in layers:
                outputs.append(image)
            if k == layers[-1]:
                break
        return outputs


def _norm(channels: int) -> tuple[nn.Module, ...]:
    return nn.InstanceNorm2d(channels), nn.ReLU()


def _down(channels: int, antialias: bool) -> tuple[nn.Module, ...]:
    wide = 2 * channels
    if antialias:
        return nn.Conv2d(channels, wide, 3, padding=1), *_norm(wide), Blur(wide)
    return nn.Conv2d(channels, wide, 3, stride=2, padding=1), *_norm(wide)


def _up(channels: int, antialias: bool) -> tuple[nn.Module, ...]:
    slim = channels // 2
    if antialias:  # linear interpolation is the filter [1, 3, 3, 1] / 4 of Zhang, ICML 2019
        double = nn.Upsample(scale_factor=2, mode="bilinear")
        return double, nn.Conv2d(channels, slim, 3, padding=1), *_norm(slim)
    double = nn.ConvTranspose2d(channels, slim, 3, stride=2, padding=1, output_padding=1)
    return double, *_norm(slim)


def _residual(channels: int) -> nn.Module:
    def convolution() -> tuple[nn.Module, ...]:
        return nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)

    body = (*convolution(), *_norm(channels), *convolution(), nn.InstanceNorm2d(channels))
    return SkipConnection(nn.Sequential(*body), mode="add")


class FeatureHeads(nn.ModuleList):
    """CUT's projections: for each layer a perceptron of two layers, scaled to unit length."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) for c in channels
        )

    def forward(self, features: Sequence[Tensor], positions: Sequence[Tensor]) -> list[Tensor]:
        """Embed features ``(B, C, h, w)`` at ``S`` positions in h*w as ``(B, S, width)``."""
        patches = (
            feature.flatten(2)[..., position].transpose(1, 2)
            for feature, position in zip(features, positions, strict=True)
        )
        return [
            F.normalize(head(patch).float(), dim=-1)
            for head, patch in zip(self, patches, strict=True)
        ]
