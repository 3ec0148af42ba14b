# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/hosts: each recipe in its host, where the host is installed."""

from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

import nec_ext

pytestmark = pytest.mark.filterwarnings("ignore")  # of the hosts

SPACING = (1.0, 1.5, 2.0)  # of X, Y, Z


def pair(*size: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    """Make a smooth image and one of other contrast: fixed[..., x] shows moving[..., x + shift]."""
    grid = [max(n // 4, 2) for n in size]
    fixed = F.interpolate(torch.rand(1, 1, *grid), size, mode="nearest-exact")
    blur = {2: F.avg_pool2d, 3: F.avg_pool3d}[len(size)]
    fixed = blur(fixed, 3, stride=1, padding=1, count_include_pad=False)
    return fixed, 1 - 0.5 * fixed.roll(shift, -1)


def check(value: Tensor, direct: Tensor, moved: Tensor) -> None:
    """Check that a host's loss is the direct one, and so is its gradient."""
    torch.testing.assert_close(value, direct)
    upstream = torch.rand_like(direct)
    found, expected = (
        torch.autograd.grad(loss, moved, upstream, retain_graph=True)[0] for loss in (value, direct)
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


def small_network() -> torch.nn.Module:
    first, last = (torch.nn.Conv2d(*channels, 3, padding=1) for channels in ((1, 4), (4, 1)))
    return torch.nn.Sequential(first, torch.nn.ReLU(), last)


@pytest.fixture
def fireants() -> Any:
    """Import the program that has both the recipe and a maker of FireANTs' images."""
    pytest.importorskip("fireants")
    return import_module("examples.hosts.fireants_brats")


@pytest.mark.parametrize("masked", [False, True])
def test_fireants_loss_follows_the_pyramid(fireants: Any, masked: bool) -> None:
    full, _ = pair(12, 11, 9)
    ngf = fireants.NGF(fireants.as_batch(full, SPACING), eta=0.7, masked=masked)
    fixed, moved = pair(5, 6, 12)  # of a coarser level, Z first
    moved.requires_grad_()
    images, both = (moved, fixed), {"spacing": [8 / 4 * 2.0, 10 / 5 * 1.5, 1.0]}
    if masked:
        masks = torch.rand(2, 1, 1, 5, 6, 12)
        images = tuple(torch.cat(parts, 1) for parts in zip(images, masks, strict=True))
        both["mask"] = masks[0] * masks[1]
    eps, target_eps = (nec_ext.estimate_eps(image, 0.7, **both) for image in (moved, fixed))
    direct = nec_ext.ngf_loss(moved, fixed, eps=eps, target_eps=target_eps, **both)
    ngf(*(100 * image for image in images))
    ngf.set_current_scale_and_iterations(2, 10)
    check(ngf(*images), direct, moved)
    assert ngf.get_image_padding() == 2


def test_fireants_finds_a_shift_under_masks(fireants: Any) -> None:
    images = [fireants.as_batch(image, SPACING) for image in pair(32, 32, 40, shift=2)]
    inside = F.pad(torch.ones(1, 1, 34, 28, 28), (2, 2, 2, 2, 2, 4))
    for image in images:
        image.batch_tensor = torch.cat([image.batch_tensor, inside], 1)
    ngf = fireants.NGF(images[0], masked=True)
    loss = {"loss_type": "masked_custom", "custom_loss": ngf}
    registration = fireants.AffineRegistration(
        [2, 1], [40, 40], *images, **loss, optimizer_lr=0.1, progress_bar=False
    )
    registration.optimize()
    place = registration.get_warped_coordinates(*images).detach()[0, 20, 16, 16, 2]
    assert (place + 1) * 39 / 2 == pytest.approx(22, abs=0.3)  # voxels along Z


def test_fireants_chooses_an_orientation_of_moments(fireants: Any) -> None:
    moments = import_module("fireants.registration.moments")
    ellipsoid = torch.ones(1, 1, 12, 18, 26)
    fixed = pair(32, 32, 40)[0] * F.pad(ellipsoid, (7, 7, 7, 7, 10, 10))
    images = [fireants.as_batch(image, (1.0, 1.0, 1.0)) for image in (fixed, fixed.flip(2))]
    loss = fireants.NGF(images[0], reduction="none")
    options = {"orientation": "both", "loss_type": "custom", "custom_loss": loss}
    registration = moments.MomentsRegistration(1, *images, moments=2, **options)
    registration.optimize()
    torch.testing.assert_close(registration.evaluate(*images), images[0](), rtol=0, atol=1e-3)


def test_monai_trainer() -> None:
    pytest.importorskip("ignite")
    hosts = import_module("examples.hosts.with_monai")
    fixed, moving = (import_module("monai.data").MetaTensor(image) for image in pair(16, 20))
    mask = (torch.rand(fixed.shape) > 0.5).float()
    network = small_network()
    optimizer = torch.optim.Adam(network.parameters())
    batch = {"image": moving, "label": fixed, "mask": mask}
    trainer = hosts.make_trainer(network, [batch], optimizer, eps=0.05)
    generated = network(moving)
    direct = nec_ext.ngf_loss(generated, fixed, eps=0.05, mask=mask)
    check(trainer.loss_function(generated, (fixed, mask)), direct, generated)
    trainer.run()
    assert trainer.state.output[0]["loss"] == direct.item()
    assert (network(moving) != generated).any()


def test_monai_multi_scale_loss() -> None:
    losses, layers = import_module("monai.losses"), import_module("monai.networks.layers")
    fixed, moved = pair(16, 20)
    moved.requires_grad_()
    kernel = losses.multi_scale.make_gaussian_kernel(1)
    smooth = [layers.separable_filtering(image, [kernel] * 2) for image in (moved, fixed)]
    direct = (nec_ext.ngf_loss(moved, fixed) + nec_ext.ngf_loss(*smooth)) / 2
    value = losses.MultiScaleLoss(nec_ext.NGFLoss(), scales=[0, 1])(fixed, moved)
    check(value, direct, moved)


def test_voxelmorph_learns_a_shift() -> None:
    pytest.importorskip("voxelmorph")
    hosts = import_module("examples.hosts.with_voxelmorph")
    fixed, moving = pair(32, 32, shift=2)
    loss = nec_ext.NGFLoss(eps=0.02)
    moved = moving.clone().requires_grad_()
    check(loss(fixed, moved), nec_ext.ngf_loss(moved, fixed, eps=0.02), moved)
    model = hosts.VxmPairwise(2, 1, 1, nb_features=(8, 8, 8))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    values = [hosts.train_step(model, optimizer, moving, fixed, loss) for _ in range(60)]
    assert values[-1] < values[0] - 0.03


class Displacement(torch.nn.Module):
    """A network of ICON that knows one displacement, in shares of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = torch.nn.Parameter(torch.tensor([0.0, 0.13]))

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.vector.view(1, 2, 1, 1).expand(1, 2, *image.shape[2:])


@pytest.mark.parametrize("package", ["icon_registration", "unigradicon"])
def test_icon(package: str) -> None:
    icon, host = pytest.importorskip("icon_registration"), pytest.importorskip(package)
    ngf = import_module("examples.hosts.with_icon").NGF(eps=0.05)
    inner = icon.FunctionFromVectorField(Displacement())
    a, b = pair(24, 24)
    mask_a, mask_b = torch.ones(2, 1, 1, 24, 24)
    if package == "unigradicon":
        mask_a, mask_b = masks = (torch.rand(2, 1, 1, 24, 24) > 0.3).float()
        net = host.GradientICONSparse(inner, ngf, 1.0, loss_function_masking=True)
    else:
        masks, net = (), host.GradientICON(inner, ngf, 1.0)
    net.assign_identity_map(a.shape)
    value = net(a, b, **dict(zip(("mask_A", "mask_B"), masks, strict=False))).similarity_loss
    # The tag is 1 without the outermost voxels; the displacement of 0.13 of 23 voxels, which are
    # 2.99, brings it to the columns up to 19; the differences of the last one reach outside.
    inside = torch.zeros(1, 1, 24, 24)
    inside[..., 2:22, :19] = 1
    both = (net.warped_image_A, b, mask_b), (net.warped_image_B, a, mask_a)
    direct = sum(
        nec_ext.ngf_loss(warped[:, :1], image, eps=0.05, mask=inside * mask)
        for warped, image, mask in both
    )
    check(value, direct, inner.net.vector)


def test_kornia_finds_a_shift() -> None:
    pytest.importorskip("kornia")
    fixed, moving = pair(64, 64, shift=3)
    found = import_module("examples.hosts.with_kornia").register(moving, fixed, "translation")
    shift = found.model.shift.detach().flatten() * 32  # voxels along X and Y
    torch.testing.assert_close(shift, torch.tensor([3.0, 0.0]), rtol=0, atol=0.3)
    moving.requires_grad_()
    value = found.get_single_level_loss(moving, fixed, torch.eye(3)[None])
    check(value, nec_ext.ngf_loss(moving, fixed, eps=0.02), moving)


def test_deepali_finds_a_shift() -> None:
    spatial = pytest.importorskip("deepali.spatial")
    hosts = import_module("examples.hosts.with_deepali")
    fixed, moving = pair(24, 28, 32, shift=2)
    grid = hosts.Grid(size=(32, 28, 24), spacing=SPACING)
    loss = hosts.NGF(grid, eps=0.05)
    mask = torch.rand_like(fixed)
    moved = moving.clone().requires_grad_()
    direct = nec_ext.ngf_loss(moved, fixed, eps=0.05, spacing=SPACING[::-1], mask=mask)
    check(loss(moved, fixed, mask), direct, moved)
    translation = spatial.Translation(grid)
    transformer = spatial.ImageTransformer(translation)
    optimizer = torch.optim.Adam(translation.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss(transformer(moving), fixed).backward()
        optimizer.step()
    shift = translation.data().detach().flatten() * (torch.tensor([32, 28, 24]) - 1) / 2
    torch.testing.assert_close(shift, torch.tensor([2.0, 0.0, 0.0]), rtol=0, atol=0.3)


def in_bfloat16(network: torch.nn.Module, source: Tensor) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        generated = network(source)
    assert generated.dtype == torch.bfloat16
    return nec_ext.ngf_loss(generated.float(), source, eps=0.05).item()


def test_lightning_trains_in_mixed_precision() -> None:
    lightning = pytest.importorskip("lightning")
    source, _ = pair(32, 32)
    hosts = import_module("examples.hosts.with_lightning")
    model = hosts.Synthesis(small_network(), eps=0.05, rate=0.01)
    losses = [in_bfloat16(model.network, source)]
    for epochs in (1, 40):
        options = {"accelerator": "cpu", "precision": "bf16-mixed", "max_epochs": epochs}
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(**options, **quiet)
        trainer.fit(model, DataLoader(source, batch_size=1))
        losses.append(trainer.callback_metrics["ngf"].item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[2] < losses[0] - 0.05


def test_accelerate_trains_in_mixed_precision() -> None:
    pytest.importorskip("accelerate")
    hosts = import_module("examples.hosts.with_accelerate")
    source, _ = pair(32, 32)
    network = small_network()
    first = in_bfloat16(network, source)
    loader = DataLoader(source.expand(60, -1, -1, -1), batch_size=1)
    accelerator = hosts.Accelerator(cpu=True, mixed_precision="bf16")
    losses = hosts.train(network, loader, accelerator, eps=0.05)
    assert losses[0] == pytest.approx(first, rel=1e-6)
    assert losses[-1] < first - 0.02
