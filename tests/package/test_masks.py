# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Masks: a noise level inside of one, the interior of one, and a mean for each sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from covering import covering
from helpers import OPERATORS, assert_same_bits, evaluate
from inputs import SMALL, Case, generator

import nec_ext

# Of lengths that occur as often as their weights say.
STATISTICS = {
    "mean": np.mean,
    "rms": lambda lengths: np.sqrt(np.mean(lengths**2)),
    "median": lambda lengths: np.quantile(lengths, 0.5, method="inverted_cdf"),
}


@covering(case=SMALL, statistic=list(STATISTICS), operator=OPERATORS, shared=[False, True])
def test_statistics_of_the_gradient(
    case: Case, statistic: str, operator: str, shared: bool
) -> None:
    image = case.images(torch.float64)[0]
    shape = case.shape[2:] if shared else case.shape
    mask = torch.randint(0, 4, shape, generator=generator("statistics"))
    actual = nec_ext.estimate_eps(image, 0.7, operator, 1.5, mask=mask, statistic=statistic)
    lengths = nec_ext.reference.image_gradient(image, operator, 1.5).norm(dim=2).flatten(2)
    weights = mask.expand(case.shape).flatten(2)
    expected = [
        [0.7 * STATISTICS[statistic](np.repeat(*pair)) for pair in zip(*sample, strict=True)]
        for sample in zip(lengths.numpy(), weights.numpy(), strict=True)
    ]
    torch.testing.assert_close(actual.flatten(1), torch.tensor(np.array(expected)))
    assert actual.shape == (*case.shape[:2], *(1,) * len(case.shape[2:]))


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
    with pytest.raises(
        ValueError, match=r"mask must not be negative or infinite, got a value of -1\.0"
    ):
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
