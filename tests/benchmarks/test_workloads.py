# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The training steps of the benchmarks train, and nothing but the loss is swapped in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import Warp
from torch import Tensor, nn

import nec_ext
from benchmarks import bench_training, workloads
from benchmarks.workloads import Registration, Synthesis, Workload
from examples.common.eager import eager_ngf_loss
from examples.common.measure import LossFunction

pytestmark = bench_training.pytestmark


def synthesis(dims: int, dtype: torch.dtype = torch.float32) -> Synthesis:
    torch.manual_seed(0)
    workload = workloads.tiny("cpu", dims, 16)
    workload.generator.to(dtype)
    workload.discriminator.to(dtype)
    source, target = workload.images
    workload.images = source.to(dtype), target.to(dtype)
    return workload


def registration(dims: int, dtype: torch.dtype = torch.float32) -> Registration:
    """A smooth image, and its negative a voxel aside."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1, 1, *(20,) * dims), generator=generator, dtype=dtype)
    smooth = F.avg_pool2d if dims == 2 else F.avg_pool3d
    image = 4 * smooth(noise, 5, stride=1, padding=2)
    return Registration("noise", image, -image.roll(1, dims=2))


either_dims = pytest.mark.parametrize("dims", [2, 3])
either_kind = pytest.mark.parametrize("build", [synthesis, registration])


def values(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(before: list[Tensor], module: nn.Module) -> list[bool]:
    return [not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)]


@either_dims
def test_each_step_trains_one_network(dims: int) -> None:
    workload = synthesis(dims)
    generator, discriminator = values(workload.generator), values(workload.discriminator)
    fake, _ = workload.generator_step(nec_ext.ngf_loss)
    assert all(changed(generator, workload.generator))
    assert not any(changed(discriminator, workload.discriminator))
    assert all(parameter.grad is None for parameter in workload.discriminator.parameters())
    generator = values(workload.generator)
    workload.discriminator_step(fake)
    assert not any(changed(generator, workload.generator))
    assert all(changed(discriminator, workload.discriminator))


@either_dims
def test_the_loss_alone_trains_the_generator(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "adversarial_loss", lambda logits, real, criterion: 0.0)
    workload = synthesis(dims)
    losses = [workload.generator_step(nec_ext.ngf_loss)[1].item() for _ in range(10)]
    assert losses[-1] < losses[0] - 1e-3


@either_dims
def test_generator_and_discriminator_are_adversaries(dims: int) -> None:
    workload = synthesis(dims)
    source, target = workload.images

    @torch.no_grad()
    def realism(image: Tensor) -> float:
        return sum(logits.mean().item() for logits in workload.discriminator(image))

    fake = workload.generator(source).detach()
    before = realism(target) - realism(fake)
    for _ in range(5):
        workload.discriminator_step(fake)
    assert realism(target) - realism(fake) > before + 1e-2

    before = realism(fake)
    for _ in range(5):
        workload.generator_step(lambda input, target: 0.0 * input.sum())
    assert realism(workload.generator(source)) > before + 1e-3


@either_kind
@either_dims
def test_losses_change_and_gradients_are_freed(dims: int, build: Callable[..., Workload]) -> None:
    workload = build(dims)
    first, _, third = (workload.step(nec_ext.ngf_loss) for _ in range(3))
    assert all(a != b and b.isfinite() for a, b in zip(first, third, strict=True))
    assert all(tensor.grad is None for tensor in workload.lasting())


@either_kind
@either_dims
def test_nothing_but_the_loss_is_swapped(dims: int, build: Callable[..., Workload]) -> None:
    """In float64: Adam takes whole steps where a gradient is nothing but rounding errors."""

    def way_of(function: LossFunction) -> Tensor:
        """How far two steps take the parameters."""
        workload = build(dims, torch.float64)
        parameters = [t for t in workload.lasting() if isinstance(t, nn.Parameter)]
        before = torch.cat([p.detach().flatten() for p in parameters])
        for _ in range(2):
            workload.step(function)
        return torch.cat([p.detach().flatten() for p in parameters]) - before

    fused, eager, other = map(way_of, (nec_ext.ngf_loss, eager_ngf_loss, F.l1_loss))
    assert (fused - eager).norm() < 1e-8 * eager.norm()
    assert (other - eager).norm() > 0.1 * eager.norm()


@either_dims
def test_registration_aligns(dims: int) -> None:
    workload = registration(dims)
    for _ in range(30):
        workload.step(nec_ext.ngf_loss)
    *others, along = workload.displacement.detach()[0].flatten(1).mean(1)
    assert along == pytest.approx(1, abs=0.1)
    assert others == pytest.approx([0] * (dims - 1), abs=0.1)


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp:UserWarning")
@either_dims
def test_warp_is_that_of_monai(dims: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 1, *(9, 11, 13)[:dims])
    workload = Registration("noise", *images)
    with torch.no_grad():
        workload.displacement.normal_()
    expected = Warp()(images[1], workload.displacement.flip(1))
    torch.testing.assert_close(workload.warped(), expected, atol=1e-5, rtol=0)


def test_networks_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        paper = workloads.paper_2d("meta")
        logits = paper.discriminator(torch.empty(1, 1, 256, 256))
    sizes = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (paper.generator, *paper.discriminator.scales)
    ]
    assert sizes == [145_316_960, 134_209, 134_209, 134_209]
    # Three convolutions of width 4, padded by 1: one halves, two take a pixel each.
    assert [tuple(scale.shape[2:]) for scale in logits] == [(126, 126), (62, 62), (30, 30)]


@pytest.mark.parametrize("budget", [8e5, 3e6, 1e8])
@pytest.mark.parametrize("further", [8.0, 10.0, 20.0])
def test_largest_edge(budget: float, further: float) -> None:
    """Also where a further voxel needs more, or less, than between the probes."""

    def needed(edge: int) -> float:
        return 1e5 + 10 * min(edge, 40) ** 3 + further * max(edge**3 - 40**3, 0)

    found = bench_training.largest_edge(needed, budget, (16, 32))
    assert needed(found) <= budget < needed(found + 16)
