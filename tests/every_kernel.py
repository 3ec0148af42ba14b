# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Every variant of the kernels once, on small images: what compute-sanitizer is given to run.

``PYTHONPATH=.:tests compute-sanitizer --tool racecheck python tests/every_kernel.py``

Images, masks and the expected results are made on the CPU, so that hardly any other kernel runs.
"""

import itertools

import torch
from helpers import (
    DTYPES,
    EPS_MODES,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    Result,
    assert_loss_close,
    assert_result_close,
    copied,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import Case, cropped, generator, strided, transposed
from torch import Tensor

import nec_ext

CASES = [
    Case("aligned_2d", (1, 2, 19, 72)),
    Case("cropped_2d", (2, 1, 33, 41), layout=cropped),
    Case("transposed_2d", (1, 1, 18, 37), layout=transposed),
    Case("aligned_3d", (1, 2, 7, 21, 40)),
    Case("cropped_3d", (2, 1, 6, 9, 35), layout=cropped),
    Case("strided_3d", (1, 1, 5, 18, 13), layout=strided),
    Case("thin_3d", (1, 2, 1, 5, 1)),
]


def run_on(device: torch.device) -> int:
    """Check every variant on a device; return how many there are."""
    count = 0
    forms = [("squared", mode) for mode in EPS_MODES] + [
        ("signed", "augmented"),  # whose derivative is continuous
        ("cross", "additive"),
    ]
    variants = itertools.product(OPERATORS, forms, DTYPES, CASES)
    for number, (operator, (form, eps_mode), dtype, case) in enumerate(variants):
        # In one dimension the other forms are next to 0: a relative error means nothing.
        if form != "squared" and case.name == "thin_3d":
            continue
        count += 1
        rng = generator(case.name)
        mask, eps = 0.1 + torch.rand(2, *case.shape, generator=rng)
        maps = ({}, {"mask": mask > 0.4}, {"mask": mask, "eps": eps}, {"target_eps": eps[:, :1]})
        reduction, wanted = REDUCTIONS[number % 3], WANTED[number // 3 % 3]
        options = {"operator": operator, "form": form, "eps_mode": eps_mode}
        options |= {"reduction": reduction, **maps[(number + number // 9) % 4]}
        images = case.images(dtype)
        upstream = random_upstream(case.shape if reduction == "none" else ())
        upstream = upstream.to(torch.promote_types(dtype, torch.float32))
        on_device = [copied(tensor, device) for tensor in (*images, upstream)]
        given = {
            name: copied(value, device) if isinstance(value, Tensor) else value
            for name, value in options.items()
        }
        found = evaluate(nec_ext.ngf_loss, *on_device, wanted, **given)
        moved = Result(*(tensor if tensor is None else tensor.cpu() for tensor in found))
        expected = expected_result(*images, upstream, wanted, **options)
        assert_result_close(moved, expected)
        # Kernels without a gradient.
        assert_loss_close(nec_ext.ngf_loss(*on_device[:2], **given).cpu(), expected.loss)
    return count


if __name__ == "__main__":
    print(f"{run_on(torch.device('cuda'))} variants are right")
