# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The networks of the four systems against the numbers and figures of their papers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from brats_runs import small_options
from torch import Tensor, nn

from examples.brats.model.networks import (
    Blur,
    ResNetGenerator,
    check_size,
    make_discriminator,
    make_generator,
)
from examples.brats.options import make_options


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def receptive_field(network: nn.Module, size: int) -> list[int]:
    """Per scale, how many pixels along an axis the middle one of its logits depends on."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.InstanceNorm2d):  # which looks at the whole image
                setattr(parent, name, nn.Identity())
    image = torch.zeros(1, 1, size, size, requires_grad=True)
    spans = []
    for logits in network(image):
        middle = logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2]
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        spans.append(int((gradient[0, 0].abs().sum(0) > 0).sum()))
    return spans


@pytest.mark.parametrize(
    ("changes", "millions"),
    [
        ({}, 145.32),
        ({"unet_units": 18}, 258.5),
        ({"data.size": 64, "unet_channels": (16, 32, 64, 128), "unet_units": 2}, 0.40),
    ],
)
def test_unet_has_the_papers_size(changes: dict[str, object], millions: float) -> None:
    options = make_options("nec", "paper", changes)
    check_size(options)
    with torch.device("meta"):
        generator = make_generator(options)
        image = torch.empty(2, 1, options.data.size, options.data.size)
        assert generator(image).shape == image.shape
    digits = len(f"{millions}".partition(".")[2])
    assert round(parameters(generator) / 1e6, digits) == millions


def test_the_papers_discriminator() -> None:
    discriminator = make_discriminator(make_options("nec"))
    assert parameters(discriminator) == 3 * 134_209
    logits = discriminator(torch.randn(2, 1, 256, 256))
    assert [tuple(one.shape) for one in logits] == [(2, 1, n, n) for n in (126, 62, 30)]
    # 16 pixels of each scale; the averages of 3x3 pixels add to those of the coarser ones.
    assert receptive_field(discriminator, 256) == [16, 33, 67]


def test_70x70_patchgan() -> None:
    discriminator = make_discriminator(make_options("cyclegan"))
    assert round(parameters(discriminator) / 1e6, 2) == 2.76
    assert [one.shape[-1] for one in discriminator(torch.randn(1, 1, 256, 256))] == [30]
    assert receptive_field(discriminator, 256) == [70]


@pytest.mark.parametrize("antialias", [False, True])
def test_resnet_has_the_layers_of_the_paper(antialias: bool) -> None:
    generator = ResNetGenerator(64, 9, antialias=antialias)
    sides = [(7, 1, 64), (3, 64, 128), (3, 128, 256), *[(3, 256, 256)] * 18]
    sides += [(3, 256, 128), (3, 128, 64), (7, 64, 1)]
    assert parameters(generator) == sum(k * k * c * d + d for k, c, d in sides)
    image = torch.randn(1, 1, 64, 64)
    fake = generator(image)
    assert fake.shape == image.shape
    assert fake.abs().max() < 1


def test_features_are_those_that_cut_counts() -> None:
    generator = ResNetGenerator(4, 9, antialias=True)
    image = torch.randn(2, 1, 32, 32)
    layers = (0, 4, 8, 12, 16)
    features = generator.features(image, layers)
    shapes = [(1, 38), (8, 32), (16, 16), (16, 8), (16, 8)]
    assert [tuple(one.shape) for one in features] == [(2, c, n, n) for c, n in shapes]
    torch.testing.assert_close(features[0], F.pad(image, (3, 3, 3, 3), mode="reflect"))
    assert isinstance(generator[4], nn.Conv2d) and isinstance(generator[8], nn.Conv2d)
    # The fifth residual block adds to what comes out of the fourth.
    (before,) = generator.features(image, (15,))
    torch.testing.assert_close(features[4], before + generator[16].submodule(before))


def test_blur_is_the_binomial_filter() -> None:
    image = torch.randn(2, 3, 8, 8)
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    expected = torch.zeros(2, 3, 4, 4)
    for i, a in enumerate((0.25, 0.5, 0.25)):
        for j, b in enumerate((0.25, 0.5, 0.25)):
            expected += a * b * padded[..., i : i + 8 : 2, j : j + 8 : 2]
    torch.testing.assert_close(Blur(3)(image), expected)


def standard_deviation(network: nn.Module) -> Tensor:
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    return max(weights, key=Tensor.numel).std()


def test_initial_weights() -> None:
    torch.manual_seed(0)
    normal = make_generator(small_options("cyclegan", generator="resnet", initialization="normal"))
    assert standard_deviation(normal).item() == pytest.approx(0.02, rel=0.1)
    xavier = make_generator(small_options("cut"))
    channels = 9 * 16  # of a residual block, times the pixels of its kernel
    expected = 0.02 * math.sqrt(2 / (channels + channels))
    assert standard_deviation(xavier).item() == pytest.approx(expected, rel=0.1)
    for network in (normal, xavier):
        assert all(not bias.any() for name, bias in network.named_parameters() if "bias" in name)


@pytest.mark.parametrize(
    ("system", "changes", "message"),
    [
        ("nec", {"data.size": 240}, "the networks cannot take images of 240x240: Sizes"),
        ("cyclegan", {"data.size": 66}, "the ResNet needs a data.size that is a multiple of 4"),
        ("nec", {"discriminator": "monai", "discriminator_layers": 5}, "image size is too small"),
    ],
)
def test_images_that_do_not_fit(system: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_size(make_options(system, "paper", changes))
    assert "\n" not in str(error.value)
