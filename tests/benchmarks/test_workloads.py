# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""In the training steps of the benchmarks nothing but the loss is swapped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from monai.losses import BendingEnergyLoss
from torch import Tensor

import nec_ext
from benchmarks import bench_training, workloads
from benchmarks.workloads import Registration, Synthesis, Workload
from examples.common.eager import eager_ngf_loss
from examples.common.measure import LossFunction
from examples.registration.warp import warp

pytestmark = bench_training.pytestmark


# In float64: Adam takes whole steps where a gradient is but rounding errors.
def synthesis() -> Synthesis:
    workload = workloads.tiny("cpu", 3, 16)
    workload.learner.system.double()
    torch.manual_seed(0)
    workload.images = tuple(torch.rand(2, 1, 1, 16, 16, 16, dtype=torch.float64))
    return workload


def registration() -> Registration:
    torch.manual_seed(0)
    noise = F.avg_pool3d(torch.randn(1, 1, 16, 16, 16, dtype=torch.float64), 5, stride=1, padding=2)
    return Registration("noise", noise, -noise.roll(1, dims=2))


@pytest.mark.parametrize("build", [synthesis, registration])
def test_nothing_but_the_loss_is_swapped(build: Callable[..., Workload]) -> None:
    def way_of(function: LossFunction) -> Tensor:
        workload = build()
        parameters = [tensor for tensor in workload.lasting() if tensor.requires_grad]
        before = torch.cat([p.detach().flatten() for p in parameters])
        for _ in range(2):
            workload.step(function)
        assert all(tensor.grad is None for tensor in workload.lasting())
        return torch.cat([p.detach().flatten() for p in parameters]) - before

    fused, eager, other = map(way_of, (nec_ext.ngf_loss, eager_ngf_loss, F.l1_loss))
    assert (fused - eager).norm() < 1e-8 * eager.norm()
    assert (other - eager).norm() > 0.1 * eager.norm()


def test_a_registration_descends_loss_and_bending_energy() -> None:
    workload = registration()
    fixed, moving = workload.images
    knots = workload.descent.knots
    with torch.no_grad():
        knots.normal_()
    warped = warp(moving, F.interpolate(knots, fixed.shape[2:], mode="trilinear"), (1.0, 1.0, 1.0))
    loss = F.l1_loss(warped, fixed) + 0.1 * BendingEnergyLoss()(knots)
    (expected,) = torch.autograd.grad(loss, knots)
    workload.step(F.l1_loss)
    (state,) = workload.optimizers[0].state.values()
    # The first step makes Adam's mean of the gradients a tenth of the first one.
    torch.testing.assert_close(10 * state["exp_avg"], expected)


def test_largest_edge() -> None:
    for budget, further in ((8e5, 8.0), (3e6, 20.0), (1e8, 8.0)):

        def needed(edge: int, further: float = further) -> float:
            return 1e5 + 10 * min(edge, 40) ** 3 + further * max(edge**3 - 40**3, 0)

        found = bench_training.largest_edge(needed, budget, (16, 32))
        assert needed(found) <= budget < needed(found + 16)
