# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The same bits on any number of threads; the same numbers on every instruction set."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import REDUCTIONS, Result, assert_same_bits, evaluate, run_python, threads
from inputs import LARGE, SMALL, Case, generator

import nec_ext

CAPABILITIES = nec_ext.build_info()["cpu_capabilities"].split()
VARIABLE = "NEC_EXT_CPU_CAPABILITY"
SHOW = "import nec_ext; print(nec_ext.build_info()['cpu_capability'])"
LOSS = "import torch, nec_ext; nec_ext.ngf_loss(*torch.rand(2, 1, 1, 4, 4))"


def masked(case: Case, dtype: torch.dtype, reduction: str) -> Result:
    mask = torch.rand(case.shape, generator=generator("mask"))
    return evaluate(
        nec_ext.ngf_loss, *case.images(dtype), mask=mask, operator="sobel", reduction=reduction
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*SMALL, *LARGE], ids=lambda case: case.name)
def test_threads(case: Case, dtype: torch.dtype, reduction: str) -> None:
    with threads(1):
        alone = masked(case, dtype, reduction)
    for count in (2, 3, 7):
        with threads(count):
            assert_same_bits(masked(case, dtype, reduction), alone)


@pytest.mark.parametrize("case", LARGE, ids=lambda case: case.name)
def test_repeated_runs(case: Case) -> None:
    images = case.images()
    first = evaluate(nec_ext.ngf_loss, *images)
    for _ in range(5):
        assert_same_bits(evaluate(nec_ext.ngf_loss, *images), first)


def test_gradients_do_not_change_the_loss() -> None:
    for case in [*SMALL, *LARGE]:
        images = case.images()
        losses = [
            evaluate(nec_ext.ngf_loss, *images, wanted=wanted).loss
            for wanted in ("input", "target", "both")
        ]
        with torch.no_grad():
            losses.append(nec_ext.ngf_loss(*images))
        assert all(torch.equal(loss, losses[0]) for loss in losses)


def test_concurrent_calls() -> None:
    """From Python threads, as data-parallel training makes them: scratch memory is not shared."""
    pairs = [case.images() for case in [*SMALL, *LARGE]]
    expected = [evaluate(nec_ext.ngf_loss, *images) for images in pairs]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(evaluate, nec_ext.ngf_loss, *pairs[k % len(pairs)]) for k in range(40)]
        for k, job in enumerate(jobs):
            assert_same_bits(job.result(), expected[k % len(pairs)])


# --- Instruction sets -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown() -> dict[str | None, subprocess.CompletedProcess[str]]:
    """What a fresh interpreter chooses if it is told so, and if it is not."""
    found = {name: run_python("-c", SHOW, **{VARIABLE: name}) for name in CAPABILITIES}
    return {**found, None: run_python("-c", f"import os; os.environ.pop({VARIABLE!r}, 0); {SHOW}")}


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_instruction_set(
    capability: str, shown: dict[str | None, subprocess.CompletedProcess[str]]
) -> None:
    choice = shown[capability]
    if choice.returncode and "does not run on this processor" in choice.stderr:
        pytest.skip(f"this processor has no {capability}")
    assert choice.stdout.strip() == capability
    # All kernels, rows of all lengths, every way to load and store, and the rows that are computed
    # again.
    chosen = [
        f"tests/kernels/test_functional.py::{name}"
        for name in ("test_every_input", "test_large_input", "test_mask")
    ]
    chosen += ["tests/kernels/test_extremes.py::test_scales"]
    only = "thin_2x5x6 or odd or strided or large or float64-none or (3d and 1e+30)"
    options = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "-k", only)
    result = run_python("-m", "pytest", *options, *chosen, **{VARIABLE: capability})
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def test_the_best_instruction_set_is_chosen(
    shown: dict[str | None, subprocess.CompletedProcess[str]],
) -> None:
    runnable = [name for name in CAPABILITIES if shown[name].returncode == 0]
    assert shown[None].stdout.strip() == runnable[-1]


@pytest.mark.parametrize("code", [SHOW, LOSS], ids=["build_info", "loss"])
def test_unknown_instruction_set(code: str) -> None:
    result = run_python("-c", code, **{VARIABLE: "avx1024"})
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    for word in ("RuntimeError", VARIABLE, '"avx1024"', *CAPABILITIES):
        assert word in last
