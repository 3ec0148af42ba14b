# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""examples/hosts: each recipe in its host, where the host is installed."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

import nec_ext

# What hosts warn of.
pytestmark = pytest.mark.filterwarnings("ignore")


def recipe(host: str, *packages: str) -> ModuleType:
    """Import a recipe; skip the test without the packages that the recipe needs."""
    for package in packages:
        pytest.importorskip(package)
    return importlib.import_module(f"examples.hosts.with_{host}")


def pair(*size: int, shift: int = 0) -> tuple[Tensor, Tensor]:
    """Make a smooth image, and one with its edges but another contrast, moved along the last axis.

    ``fixed[..., x]`` shows what ``moving[..., x + shift]`` shows.
    """
    grid = [max(n // 4, 2) for n in size]
    mode = {2: "bicubic", 3: "trilinear"}[len(size)]
    fixed = F.interpolate(torch.rand(1, 1, *grid), size, mode=mode)
    return fixed, 1 - 0.5 * fixed.roll(shift, -1)


def check_gradient(value: Tensor, moved: Tensor, direct: Tensor) -> None:
    """Check that a host's loss is the direct one, and so is its gradient."""
    upstream = torch.rand_like(direct)
    torch.testing.assert_close(value, direct)
    found, expected = (
        torch.autograd.grad((upstream * loss).sum(), moved, retain_graph=True)[0]
        for loss in (value, direct)
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


def small_network(channels: int = 1, dims: int = 2) -> torch.nn.Module:
    convolution = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
    return torch.nn.Sequential(
        convolution(channels, 4, 3, padding=1), torch.nn.ReLU(), convolution(4, 1, 3, padding=1)
    )


# ------------------------------------------------------------------------------------------------
# FireANTs
# ------------------------------------------------------------------------------------------------

SPACING = (1.0, 1.5, 2.0)  # of X, Y, Z


@pytest.mark.parametrize("masked", [False, True])
def test_fireants_loss_follows_the_pyramid(masked: bool) -> None:
    hosts = recipe("fireants", "fireants", "SimpleITK")
    brats = importlib.import_module("examples.hosts.fireants_brats")
    full, _ = pair(12, 11, 9)
    ngf = hosts.NGF(brats.as_batch(full, SPACING), eta=0.7, masked=masked)
    fixed, moved = pair(5, 6, 12)  # a coarser level, whose axes are Z, Y, X
    moved.requires_grad_()
    masks = (torch.rand_like(fixed), torch.rand_like(fixed)) if masked else None
    images = (moved, fixed)
    if masks:
        images = tuple(torch.cat(parts, 1) for parts in zip(images, masks, strict=True))
    mask = masks[0] * masks[1] if masks else None
    spacing = [8 / 4 * 2.0, 10 / 5 * 1.5, 1.0]
    eps, target_eps = (
        nec_ext.estimate_eps(image, 0.7, spacing=spacing, mask=mask) for image in (moved, fixed)
    )
    direct = nec_ext.ngf_loss(
        moved, fixed, eps=eps, target_eps=target_eps, spacing=spacing, mask=mask
    )
    ngf.set_current_scale_and_iterations(2, 10)
    check_gradient(ngf(*images), moved, direct)
    assert ngf.get_image_padding() == 2


@pytest.mark.parametrize("masked", [False, True])
def test_fireants_finds_a_shift(masked: bool) -> None:
    hosts = recipe("fireants", "fireants", "SimpleITK")
    brats = importlib.import_module("examples.hosts.fireants_brats")
    affine = importlib.import_module("fireants.registration.affine")
    fixed, moving = pair(32, 32, 40, shift=2)
    images = [brats.as_batch(image, SPACING) for image in (fixed, moving)]
    if masked:
        inside = F.pad(torch.ones(1, 1, 28, 28, 34), (4, 2, 2, 2, 2, 2))
        for image in images:
            image.batch_tensor = torch.cat([image.batch_tensor, inside.permute(0, 1, 4, 3, 2)], 1)
    registration = affine.AffineRegistration(
        [2, 1],
        [40, 40],
        *images,
        loss_type="masked_custom" if masked else "custom",
        custom_loss=hosts.NGF(images[0], masked=masked),
        optimizer_lr=0.1,
        progress_bar=False,
    )
    registration.optimize()
    shift = registration.get_warped_coordinates(*images).detach()[0, 20, 16, 16, 2]
    middle = 20 * 2 / 39 - 1
    assert abs((shift - middle) * 39 / 2 - 2) < 0.3  # voxels along Z


def test_fireants_rates_the_orientations_of_moments() -> None:
    hosts = recipe("fireants", "fireants", "SimpleITK")
    brats = importlib.import_module("examples.hosts.fireants_brats")
    moments = importlib.import_module("fireants.registration.moments")
    fixed, moving = pair(32, 32, 40)
    images = [brats.as_batch(image, SPACING) for image in (fixed, fixed.flip(2))]
    registration = moments.MomentsRegistration(
        1,
        *images,
        moments=2,
        loss_type="custom",
        custom_loss=hosts.NGF(images[0], reduction="none"),
    )
    registration.optimize()
    moved = registration.evaluate(*images)
    before, after = (nec_ext.ngf_loss(i, images[0]()) for i in (images[1](), moved))
    assert after < before


# ------------------------------------------------------------------------------------------------
# MONAI
# ------------------------------------------------------------------------------------------------


def test_monai_trainer() -> None:
    monai = importlib.import_module("monai.data")
    hosts = recipe("monai", "ignite")
    fixed, moving = pair(16, 20)
    mask = (torch.rand_like(fixed) > 0.5).float()
    batch = {"image": monai.MetaTensor(moving), "label": monai.MetaTensor(fixed), "mask": mask}
    network = small_network()
    before = [p.clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters())
    trainer = hosts.make_trainer(network, [batch], optimizer, eps=0.05)
    generated = network(moving)
    direct = nec_ext.ngf_loss(generated, fixed, eps=0.05, mask=mask)
    check_gradient(trainer.loss_function(generated, (batch["label"], mask)), generated, direct)
    trainer.run()
    assert trainer.state.output[0]["loss"] == direct.item()
    assert any((p != q).any() for p, q in zip(network.parameters(), before, strict=True))


def test_monai_masked_loss_makes_false_edges() -> None:
    losses = importlib.import_module("monai.losses")
    images = torch.rand(2, 1, 1, 24, 24)
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 8:16, 8:16] = 1
    loss = nec_ext.NGFLoss(eps=0.15, reduction="none")
    rim = mask.bool() & (nec_ext.interior_mask(mask) == 0)
    false = losses.MaskedLoss(loss)(*images, mask)[rim].mean()
    right = loss(*images)[rim].mean()
    assert false < right - 0.05


def test_monai_multi_scale_loss() -> None:
    losses = importlib.import_module("monai.losses")
    filters = importlib.import_module("monai.networks.layers")
    fixed, moved = pair(16, 20)
    moved.requires_grad_()
    kernel = losses.multi_scale.make_gaussian_kernel(1)
    smooth = [filters.separable_filtering(i, [kernel] * 2) for i in (moved, fixed)]
    direct = (nec_ext.ngf_loss(moved, fixed) + nec_ext.ngf_loss(*smooth)) / 2
    value = losses.MultiScaleLoss(nec_ext.NGFLoss(), scales=[0, 1])(fixed, moved)
    check_gradient(value, moved, direct)


# ------------------------------------------------------------------------------------------------
# VoxelMorph, ICON
# ------------------------------------------------------------------------------------------------


def test_voxelmorph_learns_a_shift() -> None:
    hosts = recipe("voxelmorph", "voxelmorph", "neurite")
    fixed, moving = pair(32, 32, shift=2)
    loss = nec_ext.NGFLoss(eps=0.02)
    moved = moving.clone().requires_grad_()
    check_gradient(loss(fixed, moved), moved, nec_ext.ngf_loss(moved, fixed, eps=0.02))
    model = hosts.VxmPairwise(2, 1, 1, nb_features=(8, 8, 8))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    values = [hosts.train_step(model, optimizer, moving, fixed, loss) for _ in range(40)]
    torch.testing.assert_close(values[0], loss(fixed, moving), rtol=1e-3, atol=0)
    assert values[-1] < values[0] - 0.05


class Displacement(torch.nn.Module):
    """A network of ICON that knows one displacement, in shares of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = torch.nn.Parameter(torch.tensor([0.0, 0.13]))

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.vector.view(1, 2, 1, 1).expand(1, 2, *image.shape[2:])


@pytest.mark.parametrize("masked", [False, True])
def test_icon(masked: bool) -> None:
    hosts = recipe("icon", "icon_registration", *(["unigradicon"] if masked else []))
    icon = importlib.import_module("icon_registration")
    inner = icon.FunctionFromVectorField(Displacement())
    a, b = pair(24, 24)
    masks = ()
    if masked:
        uni = importlib.import_module("unigradicon")
        masks = tuple((torch.rand(2, 1, 1, 24, 24) > 0.3).float())
        net = uni.GradientICONSparse(inner, hosts.NGF(eps=0.05), 1.0, loss_function_masking=True)
    else:
        net = icon.GradientICON(inner, hosts.NGF(eps=0.05), 1.0)
    net.assign_identity_map(a.shape)
    value = net(a, b, **dict(zip(("mask_A", "mask_B"), masks, strict=False))).similarity_loss

    # The tag is 1 without the outermost voxels; the displacement of 0.13 of 23 voxels, which are
    # 2.99, brings it to the columns up to 19; the differences of the last one reach outside.
    inside = torch.zeros(1, 1, 24, 24)
    inside[..., 2:22, :19] = 1
    direct = torch.zeros(())
    for warped, image, mask in zip(
        (net.warped_image_A, net.warped_image_B), (b, a), masks[::-1] or (1, 1), strict=True
    ):
        direct = direct + nec_ext.ngf_loss(warped[:, :1], image, eps=0.05, mask=inside * mask)
    check_gradient(value, inner.net.vector, direct)


# ------------------------------------------------------------------------------------------------
# kornia, deepali
# ------------------------------------------------------------------------------------------------


def test_kornia_finds_a_shift() -> None:
    hosts = recipe("kornia", "kornia")
    fixed, moving = pair(64, 64, shift=3)
    registrator = hosts.register(moving, fixed, "translation")
    shift = registrator.model.shift.detach().flatten() * 32  # voxels along X and Y
    torch.testing.assert_close(shift, torch.tensor([3.0, 0.0]), rtol=0, atol=0.3)
    moving.requires_grad_()
    value = registrator.get_single_level_loss(moving, fixed, torch.eye(3)[None])
    check_gradient(value, moving, nec_ext.ngf_loss(moving, fixed, eps=0.02))


def test_deepali_finds_a_shift() -> None:
    hosts = recipe("deepali", "deepali")
    spatial = importlib.import_module("deepali.spatial")
    fixed, moving = pair(24, 28, 32, shift=2)
    grid = hosts.Grid(size=(32, 28, 24), spacing=SPACING)
    loss = hosts.NGF(grid, eps=0.05)
    mask = torch.rand_like(fixed)
    moved = moving.clone().requires_grad_()
    direct = nec_ext.ngf_loss(moved, fixed, eps=0.05, spacing=(2.0, 1.5, 1.0), mask=mask)
    check_gradient(loss(moved, fixed, mask), moved, direct)

    translation = spatial.Translation(grid)
    transformer = spatial.ImageTransformer(translation)
    optimizer = torch.optim.Adam(translation.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        loss(transformer(moving), fixed).backward()
        optimizer.step()
    shift = translation.data().detach().flatten() * (torch.tensor([32, 28, 24]) - 1) / 2
    torch.testing.assert_close(shift, torch.tensor([2.0, 0.0, 0.0]), rtol=0, atol=0.3)


# ------------------------------------------------------------------------------------------------
# Mixed precision
# ------------------------------------------------------------------------------------------------


def in_bfloat16(network: torch.nn.Module, source: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        generated = network(source)
    assert generated.dtype == torch.bfloat16
    loss = nec_ext.ngf_loss(generated, source, eps=0.05)
    assert loss.dtype == torch.float32
    return loss.detach()


def test_lightning_trains_in_mixed_precision() -> None:
    hosts = recipe("lightning", "lightning")
    source, _ = pair(32, 32)
    model = hosts.Synthesis(small_network(), eps=0.05, rate=0.01)
    first = in_bfloat16(model.network, source)
    options = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    values = []
    for steps in (1, 40):
        trainer = hosts.lightning.Trainer(
            accelerator="cpu", precision="bf16-mixed", max_epochs=steps, **options
        )
        trainer.fit(model, DataLoader(source, batch_size=1))
        values.append(trainer.callback_metrics["ngf"])
    torch.testing.assert_close(values[0], first)
    assert values[1] < first - 0.05


def test_accelerate_trains_in_mixed_precision() -> None:
    hosts = recipe("accelerate", "accelerate")
    source, _ = pair(32, 32)
    network = small_network()
    first = in_bfloat16(network, source)
    loader = DataLoader(source.expand(60, -1, -1, -1), batch_size=1)
    losses = hosts.train(
        network, loader, hosts.Accelerator(cpu=True, mixed_precision="bf16"), eps=0.05
    )
    assert losses[0] == pytest.approx(first.item(), rel=1e-6)
    assert losses[-1] < losses[0] - 0.02
