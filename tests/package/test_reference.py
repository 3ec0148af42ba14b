# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The reference, which judges all else, against loops over voxels and a number by hand."""

import math
from typing import Any

import pytest
import torch
from covering import covering
from helpers import ALL_FORMULAS, EPS_MODES, OPERATORS, REDUCTIONS, assert_as_loops
from inputs import THIN, Case, brain, constant, generator, ramp

from nec_ext import reference

TINY = [
    Case("tiny_2d", (2, 2, 5, 4)),
    Case("tiny_3d", (1, 2, 3, 4, 5)),
    Case("tiny_ramp_2d", (1, 1, 4, 5), ramp),
    Case("tiny_ramp_3d", (1, 1, 3, 4, 3), ramp),
    Case("tiny_brain_2d", (1, 1, 9, 9), brain),
    Case("tiny_brain_3d", (1, 1, 5, 6, 5), brain),
    Case("tiny_constant_3d", (1, 1, 3, 2, 3), constant),
]


def check_reference(case: Case, **options: Any) -> None:
    assert_as_loops(reference.ngf_loss, *case.images(torch.float64), **options)


@covering(case=TINY, options=ALL_FORMULAS)
def test_formulas(case: Case, options: dict[str, str]) -> None:
    spacing = [0.7, 1.3, 2.5][: len(case.shape) - 2]
    check_reference(case, spacing=spacing, eps=0.1, target_eps=0.3, **options)


@covering(case=THIN, operator=OPERATORS, eps_mode=EPS_MODES)
def test_thin_images(case: Case, operator: str, eps_mode: str) -> None:
    check_reference(case, operator=operator, eps_mode=eps_mode)


@covering(case=TINY[:2], reduction=REDUCTIONS, mask=["none", "random", "zeros"])
def test_reductions(case: Case, reduction: str, mask: str) -> None:
    masks = {
        "none": None,
        "random": torch.rand(case.shape, generator=generator("mask"), dtype=torch.float64),
        "zeros": torch.zeros(case.shape),
    }
    check_reference(case, reduction=reduction, mask=masks[mask], weight=-1.7)


@pytest.mark.parametrize("case", TINY[:2], ids=lambda case: case.name)
def test_maps(case: Case) -> None:
    rng = generator("maps")
    eps = 0.05 + torch.rand(case.shape, generator=rng, dtype=torch.float64)
    samples = (case.shape[0], *(1,) * (len(case.shape) - 1))
    per_sample = 0.05 + torch.rand(samples, generator=rng, dtype=torch.float64)
    mask = torch.rand(case.shape[2:], generator=rng) > 0.5
    check_reference(case, eps=eps, target_eps=per_sample, mask=mask)


def test_paper_formula_at_one_edge() -> None:
    # d = (0, 1), e = (1, 1), eps = 1: n(I) = (0, 1/2), n(J) = (1, 1) / (sqrt(2) + 1), t = 1 / (2
    # (sqrt(2) + 1)).
    input = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64).view(1, 1, 2, 2)
    target = torch.tensor([[0.0, 1.0], [1.0, 2.0]], dtype=torch.float64).view(1, 1, 2, 2)
    loss = reference.ngf_loss(input, target, eps=1.0, operator="forward", reduction="none")
    t = 1 / (2 * (math.sqrt(2) + 1))
    assert loss[0, 0, 0, 0].item() == pytest.approx(1 - t * t / 2, rel=1e-15)
