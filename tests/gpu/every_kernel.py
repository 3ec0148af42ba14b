# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Every variant of the kernels once, on small images: what compute-sanitizer is given to run.

``PYTHONPATH=.:tests compute-sanitizer --tool racecheck python tests/gpu/every_kernel.py``

Images, masks and the expected results are made on the CPU, so that hardly any other kernel runs.
"""

import itertools

import torch
from gpu import all_on_gpu, on_gpu
from helpers import (
    DTYPES,
    EPS_MODES,
    OPERATORS,
    REDUCTIONS,
    WANTED,
    Result,
    assert_result_close,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import Case, cropped, generator, strided, transposed

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


def main() -> None:
    forms = [("squared", mode) for mode in EPS_MODES] + [
        ("absolute", "augmented"),
        ("cross", "additive"),
    ]
    variants = itertools.product(OPERATORS, forms, DTYPES, CASES)
    for number, (operator, (form, eps_mode), dtype, case) in enumerate(variants):
        rng = generator(case.name)
        mask, eps = 0.1 + torch.rand(2, *case.shape, generator=rng)
        maps = ({}, {"mask": mask > 0.4}, {"mask": mask, "eps": eps}, {"target_eps": eps[:, :1]})
        reduction, wanted = REDUCTIONS[number % 3], WANTED[number // 3 % 3]
        options = {"operator": operator, "form": form, "eps_mode": eps_mode}
        options |= {"reduction": reduction, **maps[number % 4]}
        images = case.images(dtype)
        upstream = random_upstream(case.shape if reduction == "none" else ())
        upstream = upstream.to(torch.promote_types(dtype, torch.float32))
        on_device = [on_gpu(tensor) for tensor in (*images, upstream)]
        found = evaluate(nec_ext.ngf_loss, *on_device, wanted, **all_on_gpu(options))
        moved = Result(*(tensor if tensor is None else tensor.cpu() for tensor in found))
        assert_result_close(moved, expected_result(*images, upstream, wanted, **options))
    print(f"{number + 1} variants are right")


if __name__ == "__main__":
    main()
