# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The field, the automatic noise threshold, and masks: their interior, and a mean per sample."""

from typing import Any

import numpy as np
import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    DTYPES,
    EPS_MODES,
    OPERATORS,
    assert_loss_close,
    assert_same_bits,
    evaluate,
)
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


@covering(operator=OPERATORS, eps_mode=ALL_FORMULAS["eps_mode"])
def test_field_is_differentiable(operator: str, eps_mode: str) -> None:
    image = TINY[1].images(torch.float64)[0].requires_grad_()
    eps = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *both: nec_ext.ngf_field(*both, eps_mode, operator, 1.3), (image, eps)
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


# Of lengths that occur as often as their weights say.
STATISTICS = {
    "mean": np.mean,
    "rms": lambda lengths: np.sqrt(np.mean(lengths**2)),
    "median": lambda lengths: np.quantile(lengths, 0.5, method="inverted_cdf"),
}


@covering(
    case=TINY, statistic=[*STATISTICS], operator=OPERATORS, masked=["no", "shared", "each its own"]
)
def test_statistics_of_the_gradient(case: Case, statistic: str, operator: str, masked: str) -> None:
    image = case.images(torch.float64)[0]
    spacing = [0.7, 1.3, 2.5][: len(case.shape) - 2]
    shape = case.shape[2:] if masked == "shared" else case.shape
    mask = torch.randint(0, 4, shape, generator=generator("statistics"))
    mask = None if masked == "no" else mask
    actual = nec_ext.estimate_eps(image, 0.7, operator, spacing, mask=mask, statistic=statistic)
    lengths = gradient_by_loops(image, operator, spacing).norm(dim=2).flatten(2)
    weights = (torch.ones(shape, dtype=int) if mask is None else mask).expand(case.shape).flatten(2)
    expected = [
        [0.7 * STATISTICS[statistic](np.repeat(*pair)) for pair in zip(*sample, strict=True)]
        for sample in zip(lengths.numpy(), weights.numpy(), strict=True)
    ]
    expected = torch.tensor(np.array(expected)).view(*case.shape[:2], *(1,) * len(spacing))
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_estimate_of_a_constant_image(dtype: torch.dtype) -> None:
    image, target = Case("constant_2d", (1, 1, 6, 9), constant).images(dtype)
    eps = nec_ext.estimate_eps(image.requires_grad_())
    assert not eps.requires_grad
    assert eps.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (eps == torch.finfo(eps.dtype).eps).all()
    assert nec_ext.ngf_loss(image, target, eps=eps) == 1


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_estimate_goes_with_the_unit_of_the_image(scale: float) -> None:
    image = SMALL[0].images()[0]
    estimate = nec_ext.estimate_eps(image * scale)
    torch.testing.assert_close(estimate, nec_ext.estimate_eps(image) * scale, rtol=1e-5, atol=0)


def test_statistic_of_an_empty_mask() -> None:
    image = SMALL[0].images()[0]
    for statistic in STATISTICS:
        eps = nec_ext.estimate_eps(image, mask=torch.zeros(1), statistic=statistic)
        assert torch.all(eps == torch.finfo(torch.float32).eps)


@covering(case=SMALL, operator=OPERATORS, kind=[torch.bool, torch.float32])
def test_nothing_outside_of_an_interior_counts(
    case: Case, operator: str, kind: torch.dtype
) -> None:
    input, target = case.images()
    mask = (torch.rand(case.shape, generator=generator("brain")) > 0.05).to(kind)
    inside = nec_ext.interior_mask(mask, operator)
    assert inside.dtype == kind and 0 < inside.count_nonzero() < mask.count_nonzero()
    changed = [torch.where(mask > 0, image, 100 * image + 7) for image in (input, target)]
    options: dict[str, Any] = {"operator": operator, "mask": inside}
    before = evaluate(nec_ext.ngf_loss, input, target, **options)
    assert_same_bits(evaluate(nec_ext.ngf_loss, *changed, **options), before)
    assert before.grad_input[mask == 0].count_nonzero() == 0


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_interior_leaves_no_voxel_out_without_need(operator: str) -> None:
    """A voxel that is left out has a value outside in its difference."""
    shape = (1, 1, 5, 6, 7)
    mask = torch.rand(shape, generator=generator("largest")) > 0.1
    outside = (~mask).double().requires_grad_()
    # The differences of random weights around a voxel, of which none cancels another.
    weights = torch.rand(shape, generator=generator("weights"), dtype=torch.float64)
    reached = nec_ext.reference.image_gradient(outside * weights, operator).abs().amax(2) > 0
    left_out = mask & (nec_ext.interior_mask(mask, operator) == 0)
    assert left_out.any() and reached[left_out].all()


def test_a_mask_must_fit() -> None:
    with pytest.raises(ValueError, match=r"mask must have shape .*got 3 dimensions: \(2, 3, 4\)"):
        nec_ext.interior_mask(torch.ones(2, 3, 4))
    with pytest.raises(TypeError, match=r"mask must be a torch\.Tensor, got list"):
        nec_ext.interior_mask([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mask must not be negative or infinite, got a value"):
        nec_ext.estimate_eps(SMALL[0].images()[0], mask=-torch.ones(1))
    with pytest.raises(ValueError, match="statistic must be one of 'mean', 'median', 'rms', got"):
        nec_ext.estimate_eps(SMALL[0].images()[0], statistic="max")


def test_each_sample_has_a_mean_of_its_own() -> None:
    case = Case("samples", (3, 2, 9, 7))
    input, target = case.images()
    mask = torch.rand(case.shape, generator=generator("samples"))
    mask[1] = 0
    eps = torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1, 1)
    loss = nec_ext.ngf_loss(input, target, mask=mask, eps=eps, reduction="sample")
    alone = [
        nec_ext.ngf_loss(input[k, None], target[k, None], mask=mask[k, None], eps=eps[k].item())
        for k in range(3)
    ]
    torch.testing.assert_close(loss, torch.stack(alone))
    assert loss[1] == 0
    module = nec_ext.NGFLoss(reduction="sum")
    assert module(input, target, reduction="none").shape == case.shape
