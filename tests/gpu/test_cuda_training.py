# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A training step on the GPU: autocast, loss scaling, torch.compile, and what is launched."""

from __future__ import annotations

import pytest
import torch
from gpu import DEVICE, on_gpu
from helpers import assert_gradient_close, assert_loss_close, expected_result
from inputs import Case, brain
from torch import Tensor, nn

import nec_ext
from benchmarks.measure import kernels

pytestmark = pytest.mark.cuda

CASE = Case("training", (2, 1, 20, 24, 27), brain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_training_step_with_autocast_and_a_scaled_loss(dtype: torch.dtype) -> None:
    # The loss does not see a bias of the last layer: its gradient would be rounding and no more.
    last = nn.Conv3d(8, 1, 3, padding=1, bias=False)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), last).to(DEVICE)
    source, target = map(on_gpu, CASE.images())
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**12)
    scale = scaler.get_scale()

    with torch.autocast(DEVICE.type, dtype):
        output = network(source)
        loss = nec_ext.ngf_loss(output, target)
    assert (output.dtype, loss.dtype) == (dtype, torch.float32)
    output.retain_grad()
    scaler.scale(loss).backward()
    expected = expected_result(output, target, scale, "input")
    assert_loss_close(loss, expected.loss)
    assert_gradient_close(output.grad, expected.grad_input)

    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == scale  # no gradient was infinite
    with torch.no_grad(), torch.autocast(DEVICE.type, dtype):
        assert nec_ext.ngf_loss(network(source), target) < loss


def test_launches_of_a_small_image() -> None:
    """One kernel for the loss and its gradient, one for the sum, at most one to scale."""
    input, target = map(on_gpu, Case("launches", (1, 1, 256, 256)).images())
    upstream = torch.tensor(0.5, device=DEVICE)
    losses: list[Tensor] = []

    def forward() -> None:
        losses.append(nec_ext.ngf_loss(input, target))

    def backward() -> None:
        torch.autograd.grad(losses[-1], input, upstream)

    forward()
    assert len(kernels(forward)) == 2
    input.requires_grad_()
    forward()
    backward()
    assert len(kernels(forward)) == 2
    assert len(kernels(backward)) <= 1
