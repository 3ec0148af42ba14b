# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Adversarial, NGF and contrastive terms against hand-computed values, and the law of the pool."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from brats_runs import random_images, small_options
from monai.losses import PatchAdversarialLoss
from torch import Tensor

from examples.brats.model.objectives import (
    ImagePool,
    adversarial_loss,
    make_ngf_loss,
    patch_nce_loss,
)


@pytest.mark.parametrize("real", [True, False])
def test_adversarial_loss_is_that_of_monai(real: bool) -> None:
    scales = [torch.randn(2, 1, 5, 5), torch.randn(2, 1, 2, 2)]
    for criterion, other in (("bce", "bce"), ("lsgan", "least_squares")):
        monai = PatchAdversarialLoss(criterion=other, no_activation_leastsq=True)
        expected = monai(scales, target_is_real=real, for_discriminator=True)
        torch.testing.assert_close(adversarial_loss(scales, real, criterion), expected)


def field(image: Tensor, eps: float) -> Tensor:
    """Haber and Modersitzki's field of Sobel's differences, as convolutions."""
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


def test_patch_nce_by_its_formula() -> None:
    queries, keys = (F.normalize(torch.randn(2, 5, 3), dim=-1).double() for _ in range(2))
    total = 0.0
    for query, key in zip(queries, keys, strict=True):  # images: no negatives from the other one
        for s in range(5):
            similar = [math.exp(float(query[s] @ key[k]) / 0.07) for k in range(5)]
            total -= math.log(similar[s] / sum(similar))
    assert patch_nce_loss(queries, keys, 0.07).item() == pytest.approx(total / 10)


def test_patch_nce_does_not_teach_the_keys() -> None:
    queries, keys = (torch.randn(1, 4, 3, requires_grad=True) for _ in range(2))
    patch_nce_loss(queries, keys, 0.07).backward()
    assert queries.grad is not None and queries.grad.abs().sum() > 0
    assert keys.grad is None


def numbered(first: int, count: int) -> Tensor:
    """Images that hold their number."""
    return torch.arange(first, first + count).float().view(-1, 1, 1, 1)


def test_pool_shows_half_from_the_past() -> None:
    pool = ImagePool(50)
    torch.testing.assert_close(pool.show(numbered(0, 50)), numbered(0, 50))
    seen: list[float] = []
    fresh = 0
    for n in range(50, 4050, 2):
        shown = pool.show(numbered(n, 2)).flatten().tolist()
        fresh += sum(value >= n for value in shown)
        seen += shown
        assert len(pool.images) == 50
    # An image leaves the pool when it is shown: after its own step it comes at most once.
    assert len(set(seen)) == len(seen)
    # The binomial law: 4000 draws, standard deviation 32. Some of those kept come back at once.
    assert abs(fresh - 2000) < 5 * 32
    ages = [n - value for n, value in zip(range(50, 4050), seen, strict=True) if value < n - 1]
    assert 80 < sum(ages) / len(ages) < 120  # stays for 50 exchanges, every other step has one


def test_pool_keeps_no_graph_and_no_batch() -> None:
    pool = ImagePool(4)
    fakes = torch.randn(2, 1, 8, 8, requires_grad=True)
    assert not pool.show(fakes * 2).requires_grad
    assert all(image.untyped_storage().nbytes() == 8 * 8 * 4 for image in pool.images)


def test_ngf_loss_follows_its_options() -> None:
    fake, source = random_images(1, 0), random_images(1, 1)
    losses = {
        make_ngf_loss(small_options(**changes))(fake, source).item()
        for changes in ({}, {"eps": 0.1}, {"eps_mode": "additive"}, {"operator": "central"})
    }
    assert len(losses) == 4
