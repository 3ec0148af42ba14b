# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Arguments of the operators, as torch's own checks of operators want them."""

from __future__ import annotations

from typing import Any

import torch
from inputs import Case, generator

# Gradients do not belong to the op: they are the autograd function's.
TESTS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


def op_arguments(
    case: Case, dtypes: tuple[torch.dtype, torch.dtype], maps: bool
) -> tuple[list[Any], list[Any]]:
    """Positional arguments that the ops have in common."""
    ndim = len(case.shape) - 2
    rng = generator("opcheck")
    given = [None] * 3
    if maps:
        given = [
            0.1 + torch.rand(case.shape, generator=rng),
            0.2 + torch.rand(case.shape[2:], generator=rng),
        ]
        given.append(torch.rand(case.shape, generator=rng) > 0.4)
    numbers = [int(maps), 2 - int(maps), 0]  # eps mode, operator, form
    images = [image.requires_grad_() for image in case.images(*dtypes)]
    return [*images, *given], [0.15, 0.3, *numbers, [1.0, 0.8, 1.3][:ndim], 0.7]
