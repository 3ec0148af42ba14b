# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Graphs that outlive the call: they hold the bare ops, and give the gradient all the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from helpers import assert_result_close, evaluate, expected_result
from inputs import generator

import nec_ext

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum", "eps_mode": "quadrature", "weight": -1.5, "spacing": 0.7},
    {"reduction": "none", "operator": "sobel", "form": "cross"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("strict", [False, True])
def test_exported(strict: bool, options: dict[str, Any]) -> None:
    input, target, mask = torch.rand(3, 1, 1, 6, 5, 7, generator=generator("exported"))
    expected = expected_result(input, target, mask=mask, **options)
    program = torch.export.export(nec_ext.NGFLoss(**options), (input, target, mask), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for module in (program.module(), torch.export.load(file).module()):
        found = evaluate(lambda i, t, m=module: m(i, t, mask), input, target)
        assert_result_close(found, expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_traced(options: dict[str, Any]) -> None:
    input, target = torch.rand(2, 2, 1, 6, 7, generator=generator("traced"))
    for example in (input, input.clone().requires_grad_()):
        traced = torch.jit.trace(nec_ext.NGFLoss(**options), (example, target))
        assert_result_close(
            evaluate(traced, input, target), expected_result(input, target, **options)
        )
