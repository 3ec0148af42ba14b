# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/brats/model: networks and objectives by their papers, generators on whole volumes."""

import functools
import itertools
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from brats_runs import SHAPE, by_hand, random_images, save, small_options, volume
from covering import covering
from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn

from examples.brats.data.options import DataOptions
from examples.brats.model.augmentation import augmented
from examples.brats.model.inference import synthesize
from examples.brats.model.networks import ResNetGenerator, make_discriminator, make_generator
from examples.brats.model.objectives import (
    ImagePool,
    adversarial_loss,
    make_ngf_loss,
    patch_nce_loss,
)
from examples.brats.model.onset import Onset, inner_correlation, warmup_target
from examples.brats.options import make_options


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def test_networks_have_the_layers_of_the_papers() -> None:
    small = {"data.size": 64, "unet_channels": (16, 32, 64, 128), "unet_units": 2}
    for changes, millions in (({}, "145.32"), ({"unet_units": 18}, "258.48"), (small, "0.40")):
        options = make_options("nec", "paper", changes)
        with torch.device("meta"):
            generator = make_generator(options)
            image = torch.empty(2, 1, options.data.size, options.data.size)
            assert generator(image).shape == image.shape
        assert f"{parameters(generator) / 1e6:.2f}" == millions
    resnet = ResNetGenerator(64, 9, antialias=True)
    layers = [(7, 1, 64), (3, 64, 128), (3, 128, 256), *[(3, 256, 256)] * 18]
    layers += [(3, 256, 128), (3, 128, 64), (7, 64, 1)]
    assert parameters(resnet) == sum(k * k * c * d + d for k, c, d in layers)
    assert resnet(torch.randn(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    for system, channels, sides in (
        ("nec", (1, 64, 128, 1), [126, 62, 30]),
        ("cyclegan", (1, 64, 128, 256, 512, 1), [30]),
    ):
        discriminator = make_discriminator(make_options(system))
        weights = sum(4 * 4 * c * d for c, d in itertools.pairwise(channels))
        biases = channels[1] + 1  # those that no instance normalization takes away again
        assert parameters(discriminator) == len(sides) * (weights + biases)
        logits = discriminator(torch.randn(1, 1, 256, 256))
        assert [tuple(one.shape) for one in logits] == [(1, 1, n, n) for n in sides]


@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_a_generator_that_leaves_the_background(kind: str) -> None:
    source = random_images(2, 0)
    head, inside = (
        make_generator(small_options("cyclegan", generator=kind, output=output))
        for output in ("head", "tanh")
    )
    head.network.load_state_dict(inside.state_dict())
    background = source <= -1
    assert 0.2 < background.float().mean() < 0.9
    expected = torch.where(background, -1, inside(source))
    torch.testing.assert_close(head(source), expected)
    if kind == "resnet":
        torch.testing.assert_close(head.features(source, [4]), inside.features(source, [4]))


@covering(real=[True, False], criterion=[("bce", "bce"), ("lsgan", "least_squares")])
def test_adversarial_loss_is_that_of_monai(real: bool, criterion: tuple[str, str]) -> None:
    scales = [torch.randn(2, 1, 5, 5), torch.randn(2, 1, 2, 2)]
    monai = PatchAdversarialLoss(criterion=criterion[1], no_activation_leastsq=True)
    expected = monai(scales, target_is_real=real, for_discriminator=True)
    torch.testing.assert_close(adversarial_loss(scales, real, criterion[0]), expected)


def test_spectral_norm_bounds_every_layer_in_place_of_instance_norm() -> None:
    def layers(norm: str, kind: Any) -> tuple[nn.Module, list[Any]]:
        options = small_options(discriminator_norm=norm, discriminator_layers=4)
        network = make_discriminator(options)
        return network, [one for one in network.modules() if isinstance(one, kind)]

    discriminator, convolutions = layers("spectral", nn.Conv2d)
    assert len(convolutions) == 4 * small_options().discriminator_scales
    for _ in range(50):  # a step of the power method for each call
        discriminator(random_images(1, 0))
    for convolution in convolutions:
        matrix = convolution.weight.flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.02)
    for norm, count in (("spectral", 0), ("none", 0), ("instance", 4)):
        assert len(layers(norm, nn.InstanceNorm2d)[1]) == count


@pytest.mark.parametrize("shape", [(32, 32), (16, 24, 16)])
def test_augmentation_of_the_discriminators_images(shape: tuple[int, ...]) -> None:
    images = torch.rand(8, 1, *shape, requires_grad=True)
    upstream = torch.randn(images.shape)
    assert augmented(images, "none") is images
    moved, cut, lit = (augmented(images, how) for how in ("translation", "cutout", "brightness"))
    kept = (cut != -1).flatten(1).float().mean(1)
    assert (kept >= 1 - 0.5 ** len(shape)).all() and (kept < 1).all()
    assert torch.equal(cut[cut != -1], images[cut != -1])
    change = (lit - images).flatten(1)
    assert (change.std(1) < 1e-6).all() and 0.1 < change[:, 0].abs().max() <= 0.5
    shares = (moved != -1).flatten(1).float().mean(1)
    assert (shares >= (7 / 8) ** len(shape)).all() and shares.std() > 0
    for image, before in zip(moved, images, strict=True):  # all that is left is where it was
        values = image[image != -1]
        assert torch.isin(values, before).all() and len(values.unique()) > 0.9 * len(values)
    for changed in (moved, cut, lit):
        (gradient,) = torch.autograd.grad((changed * upstream).sum(), images)
        expected = upstream[changed != -1].sum()  # every pixel that is left has a weight of 1
        torch.testing.assert_close(gradient.sum(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (16, 16, 16)])
def test_correlation_in_the_head_without_its_rim(shape: tuple[int, ...]) -> None:
    source, fake = torch.rand(2, 2, 1, *shape)
    head = torch.zeros(shape, dtype=torch.bool)
    head[tuple(slice(3, n - 2) for n in shape)] = True
    inner = torch.zeros_like(head)
    inner[tuple(slice(5, n - 4) for n in shape)] = True
    fake = torch.where(head & ~inner, source, -0.5 * source + 0.3 * fake)
    source[:, :, ~head] = -1
    expected = [
        np.corrcoef(a[0, inner].numpy(), b[0, inner].numpy())[0, 1]
        for a, b in zip(fake, source, strict=True)
    ]
    assert inner_correlation(fake, source).item() == pytest.approx(np.mean(expected), abs=1e-5)
    assert inner_correlation(0 * fake, source).item() == 0


def test_onset_is_the_step_after_the_last_turn_within_bounds() -> None:
    def onset_after(correlations: list[float], **changes: object) -> float:
        onset = Onset(small_options(delay="auto", **changes))
        for step, value in enumerate(correlations):
            onset.observe(step, torch.tensor(value))
        return onset.step.item()

    # From 1, the smoothed correlation is 2 * 0.98^k - 1 after k steps of -1: below -0.3 from 52.
    turned = math.ceil(math.log(0.35) / math.log(0.98))
    assert onset_after([-1.0] * 60, delay_steps=(0, 90)) == turned
    assert onset_after([-1.0] * 60, delay_steps=(55, 90)) == 55
    assert onset_after([1.0] * 60, delay_steps=(0, 50)) == 50
    # Then it rises, 0.05 in two steps: it is above -0.3 after one of them, and above 0 after ten.
    back = [-1.0] * turned + [1.0] * 100
    assert onset_after(back[: turned + 2], delay_steps=(0, 1000)) == turned
    assert onset_after(back, delay_steps=(0, 1000)) == math.inf
    assert onset_after(back, delay_steps=(0, 10)) == 10
    assert turned + 100 < onset_after(back + [-1.0] * 90, delay_steps=(0, 1000)) < math.inf
    early = {"delay_steps": (0, 1000), "delay_correlation": 0.5}
    assert onset_after([-1.0] * 16, **early) == onset_after([-1.0] * 15, **early) < 16
    later = onset_after([-1.0] * 90, delay_steps=(0, 1000), delay_correlation=-0.5)
    assert later == math.ceil(math.log(0.25) / math.log(0.98))
    assert onset_after([-1.0] * 10 + [1.0] * 20, delay_steps=(0, 1000)) == math.inf


def test_a_warm_up_copies_or_inverts_the_head() -> None:
    source = torch.tensor([-1.0, -0.9, 0.0, 0.5, 1.0])
    assert warmup_target(small_options(), source).tolist() == source.tolist()
    inverted = warmup_target(small_options(warmup_target="negative"), source)
    torch.testing.assert_close(inverted, torch.tensor([-1.0, 0.9, 0.0, -0.5, -1.0]))


def field(image: Tensor, eps: float) -> Tensor:
    """Compute Haber and Modersitzki's field of Sobel's differences, as convolutions."""
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).flip(1) / 8
    kernels = torch.stack([sobel.T, sobel])[:, None]
    gradient = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernels)
    return gradient / (gradient.square().sum(1, keepdim=True) + eps**2).sqrt()


@pytest.mark.parametrize("backend", ["fused", "eager", "compiled"])
def test_ngf_loss_is_the_trainers_form(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Traced and differentiated by torch.compile, without the half minute of its compiler.
    compile = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compile)
    fake, source = random_images(2, 0), random_images(2, 1)
    fake.requires_grad_()
    loss = make_ngf_loss(small_options(loss_backend=backend, eps=0.1))(fake, source)
    (gradient,) = torch.autograd.grad(loss, fake)
    aligned = (field(fake, 0.1) * field(source, 0.1)).sum(1).square()
    expected = (1 - aligned / 2).mean()
    (expected_gradient,) = torch.autograd.grad(expected, fake)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-8)


def test_patch_nce_by_its_formula_and_without_a_gradient_of_the_keys() -> None:
    queries, keys = (F.normalize(torch.randn(2, 5, 3), dim=-1).double() for _ in range(2))
    total = 0.0
    for query, key in zip(queries, keys, strict=True):  # images: no negatives from the other one
        for s in range(5):
            similar = [math.exp(float(query[s] @ key[k]) / 0.07) for k in range(5)]
            total -= math.log(similar[s] / sum(similar))
    queries.requires_grad_(), keys.requires_grad_()
    loss = patch_nce_loss(queries, keys, 0.07)
    assert loss.item() == pytest.approx(total / 10)
    loss.backward()
    assert queries.grad.abs().sum() > 0
    assert keys.grad is None


def test_pool_shows_half_from_the_past() -> None:
    pool = ImagePool(50)
    seen: list[float] = []
    fresh = 0
    for n in range(0, 4050, 2):
        shown = pool.show(torch.tensor([n, n + 1.0]).view(2, 1, 1, 1)).flatten().tolist()
        if n >= 50:  # it is full
            fresh += sum(value >= n for value in shown)
            seen += shown
    # An image leaves the pool when it is shown: after its own step it comes at most once.
    assert len(set(seen)) == len(seen)
    # The binomial law: 4000 draws, standard deviation 32. Some of those kept come back at once.
    assert abs(fresh - 2000) < 5 * 32


class Negation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.seen.append(images)
        return -images


AFFINE = np.array([[-1, 0, 0, 5.0], [0, -1, 0, 239], [0, 0, 1, -7], [0, 0, 0, 1]])
BRAIN = slice(2, 14), slice(3, 13), slice(0, 6)  # the box around it


@pytest.mark.parametrize(
    "choice",
    [
        DataOptions(size=16),
        DataOptions(size=10, crop=10),
        DataOptions(size=16, percentile_scope="volume"),
        DataOptions(dimensions=3, patch=8),
    ],
    ids=["slices", "crop", "scope", "windows"],
)
def test_a_synthetic_volume_is_on_the_grid_of_its_file(choice: DataOptions, tmp_path: Path) -> None:
    voxels = volume(4)
    voxels[:, :, 4] = 0
    save(tmp_path / "t1.nii.gz", voxels, AFFINE)
    generator = Negation()
    out = tmp_path / "new" / "t2.nii.gz"
    synthesize(tmp_path / "t1.nii.gz", out, generator, choice)
    result = nibabel.load(out)
    np.testing.assert_array_equal(result.affine, AFFINE)
    expected = np.full(SHAPE, -1.0)
    if choice.dimensions == 3:
        expected[BRAIN] = -by_hand(voxels, voxels)[BRAIN]
        assert {tuple(seen.shape[1:]) for seen in generator.seen} == {(1, 8, 8, 8)}
    else:
        assert len(generator.seen) == 5  # the empty slice has no contrast
        shown = slice(3, 13) if choice.crop else slice(None)
        for k in (0, 1, 2, 3, 5):
            values = voxels if choice.percentile_scope == "volume" else voxels[:, :, k]
            expected[shown, shown, k] = -by_hand(voxels[:, :, k], values)[shown, shown]
    np.testing.assert_allclose(result.get_fdata(), expected, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_volume_in_another_orientation_and_resized(dimensions: int, tmp_path: Path) -> None:
    # A smooth volume, which survives being resized there and back.
    grid = np.meshgrid(*(np.linspace(0, np.pi, n) for n in SHAPE), indexing="ij")
    voxels = (1000 * np.sin(grid[0]) * np.sin(grid[1] / 2) * (1 + grid[2])).astype(np.float32)
    save(tmp_path / "lps.nii.gz", voxels)
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / "lps.nii.gz"))
    sagittal = canonical.get_fdata(dtype=np.float32).transpose(1, 2, 0)
    save(tmp_path / "psr.nii.gz", sagittal, canonical.affine[:, [1, 2, 0, 3]])

    choice = DataOptions(size=32, percentile_scope="volume")
    if dimensions == 3:
        choice = DataOptions(dimensions=3, patch=8, spacing=0.8)
    found = []
    for name in ("lps", "psr"):
        generator, out = Negation(), tmp_path / f"{name}-out.nii"
        synthesize(tmp_path / f"{name}.nii.gz", out, generator, choice)
        found.append((nibabel.load(out), generator.seen))
    (lps, seen), (psr, same) = found
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(seen, same, strict=True))
    np.testing.assert_array_equal(psr.affine, canonical.affine[:, [1, 2, 0, 3]])
    back = nibabel.as_closest_canonical(psr).get_fdata()
    np.testing.assert_allclose(back, nibabel.as_closest_canonical(lps).get_fdata(), atol=1e-6)
    if dimensions == 2:
        error = np.abs(lps.get_fdata() + by_hand(voxels, voxels))[1:-1, 1:-1]
        assert error.max() < 0.03  # a shift by half a pixel would make it 0.1
