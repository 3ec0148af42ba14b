# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The normalized gradient field, and the automatic noise threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from covering import covering
from helpers import DTYPES, EPS_MODES, OPERATORS, assert_loss_close
from inputs import SMALL, Case, constant, generator
from oracle import clamp, taps

import nec_ext

TINY = [Case("field_2d", (2, 1, 3, 4)), Case("field_3d", (1, 2, 3, 2, 3))]


def gradient_by_loops(image: torch.Tensor, operator: str, spacing: list[float]) -> torch.Tensor:
    shape = tuple(image.shape)
    ndim = len(shape) - 2
    pixels = image.double().numpy()
    gradient = np.zeros((*shape[:2], ndim, *shape[2:]))
    for at in np.ndindex(*shape):
        for axis in range(ndim):
            for offset, coefficient in taps(operator, ndim, axis):
                value = pixels[at[:2] + clamp(at[2:], offset, shape[2:])]
                gradient[(*at[:2], axis, *at[2:])] += coefficient * value / spacing[axis]
    return torch.as_tensor(gradient)


@covering(operator=OPERATORS, eps_mode=EPS_MODES, case=TINY)
def test_field_by_loops(operator: str, eps_mode: str, case: Case) -> None:
    image, _ = case.images(torch.float64)
    spacing = [0.7, 1.3, 2.5][: len(case.shape) - 2]
    gradient = gradient_by_loops(image, operator, spacing)
    length = gradient.square().sum(2, keepdim=True).sqrt()
    expected = gradient / (length + 0.3 if eps_mode == "additive" else (length**2 + 0.09).sqrt())
    actual = nec_ext.ngf_field(image, 0.3, eps_mode, operator, spacing)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-15)


@covering(dtype=DTYPES, case=SMALL)
def test_loss_of_two_fields_is_the_loss(dtype: torch.dtype, case: Case) -> None:
    images = case.images(dtype)
    fields = [nec_ext.ngf_field(image) for image in images]
    assert fields[0].shape == (*case.shape[:2], len(case.shape) - 2, *case.shape[2:])
    assert fields[0].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    alignment = (fields[0] * fields[1]).sum(2)
    loss = nec_ext.ngf_loss(*images, reduction="none")
    assert_loss_close(loss, 1 - alignment.double().square() / 2)


@covering(operator=OPERATORS, eps_mode=EPS_MODES)
def test_field_is_differentiable(operator: str, eps_mode: str) -> None:
    image = TINY[1].images(torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda i: nec_ext.ngf_field(i, 0.3, eps_mode, operator, 1.3), image
    )
    flat = torch.zeros(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    nec_ext.ngf_field(flat, eps_mode=eps_mode, operator=operator).sum().backward()
    assert flat.grad.isfinite().all()


def test_eps_per_voxel() -> None:
    image, _ = SMALL[0].images(torch.float64)
    eps = 0.1 + torch.rand(image.shape, generator=generator("eps"), dtype=torch.float64)
    field, voxel = nec_ext.ngf_field(image, eps), (1, 2, 3, 4)
    alone = nec_ext.ngf_field(image, eps[voxel].item())
    assert torch.allclose(field[1, 2, :, 3, 4], alone[1, 2, :, 3, 4], rtol=1e-15)


# --- estimate_eps ---------------------------------------------------------------------------------


@covering(operator=OPERATORS, case=TINY)
def test_estimate_is_the_mean_length(operator: str, case: Case) -> None:
    image, _ = case.images(torch.float64)
    spacing = [0.7, 1.3, 2.5][: len(case.shape) - 2]
    length = gradient_by_loops(image, operator, spacing).square().sum(2).sqrt()
    expected = 1.7 * length.flatten(2).mean(2).view(*case.shape[:2], *(1,) * len(spacing))
    actual = nec_ext.estimate_eps(image, 1.7, operator, spacing)
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_estimate_of_a_constant_image(dtype: torch.dtype) -> None:
    image, target = Case("constant_2d", (1, 1, 6, 9), constant).images(dtype)
    eps = nec_ext.estimate_eps(image.requires_grad_())
    assert not eps.requires_grad
    assert eps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (eps == torch.finfo(eps.dtype).eps).all()
    assert nec_ext.ngf_loss(image, target, eps=eps) == 1
