# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The same bits on any number of threads; the same numbers on every instruction set."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    DTYPES,
    OPERATORS,
    REDUCTIONS,
    assert_same_bits,
    check_fused,
    evaluate,
    run_python,
    threads,
)
from inputs import LARGE, SHORT, SMALL, Case, generator

import nec_ext

CAPABILITIES = nec_ext.build_info()["cpu_capabilities"].split()
VARIABLE = "NEC_EXT_CPU_CAPABILITY"


@covering(
    case=[*SMALL, *LARGE, *SHORT], dtype=DTYPES[:3], reduction=REDUCTIONS, formula=ALL_FORMULAS
)
def test_threads(case: Case, dtype: torch.dtype, reduction: str, formula: dict[str, str]) -> None:
    mask = torch.rand(case.shape, generator=generator("mask"))
    options = {"mask": mask, "reduction": reduction, **formula}
    results = []
    for count in (1, 1, 2, 3, 7):
        with threads(count):
            results.append(evaluate(nec_ext.ngf_loss, *case.images(dtype), **options))
        assert_same_bits(results[-1], results[0])


def test_concurrent_calls() -> None:
    """From Python threads, as data-parallel training makes them: scratch memory is not shared."""
    pairs = [case.images() for case in [*SMALL, *LARGE]]
    expected = [evaluate(nec_ext.ngf_loss, *images) for images in pairs]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(evaluate, nec_ext.ngf_loss, *pairs[k % len(pairs)]) for k in range(40)]
        for k, job in enumerate(jobs):
            assert_same_bits(job.result(), expected[k % len(pairs)])


def check_some_problems() -> None:
    pairs = itertools.product([*SMALL, *SHORT[::3], *LARGE[::2]], DTYPES)
    for (case, dtype), operator in zip(pairs, itertools.cycle(OPERATORS), strict=False):
        check_fused(*case.images(dtype), reduction="sum", operator=operator)
    for scale in (1e30, 1e-30):
        input, target = SMALL[1].images()
        check_fused(scale * input, target, eps=0.15 * scale, target_eps=0.15)


CHECK = """
import sys; sys.path += ["tests", "tests/kernels"]
import nec_ext, test_determinism
test_determinism.check_some_problems()
print(nec_ext.build_info()["cpu_capability"])
"""


def test_instruction_sets() -> None:
    """Each gives the right numbers, and the last that the processor has is chosen by itself."""
    runnable = []
    for name in CAPABILITIES:
        result = run_python("-c", CHECK, **{VARIABLE: name})
        if "does not run on this processor" not in result.stderr:
            assert result.stdout.strip() == name, result.stderr[-3000:]
            runnable.append(name)
    if VARIABLE not in os.environ:
        assert nec_ext.build_info()["cpu_capability"] == runnable[-1]


def test_unknown_instruction_set() -> None:
    result = run_python("-c", "import nec_ext", **{VARIABLE: "avx1024"})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    for word in ("RuntimeError", VARIABLE, '"avx1024"', *CAPABILITIES):
        assert word in last
