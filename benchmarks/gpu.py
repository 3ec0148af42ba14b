# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The fused loss against its yardsticks on a GPU: ``python -m benchmarks.gpu RESULTS.json``.

``--dry-run`` does the same with tiny images on the CPU, which shows that it runs and nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import nec_ext

from .measure import (
    ColdGpu,
    LossFunction,
    forward_only,
    kernels,
    loss_and_gradient,
    median_times,
    peak_memory,
    saved_memory,
    seconds,
    seconds_of_host,
    seconds_until_done,
)
from .peers import eager_ngf_loss

MEGABYTE = 2**20
# Relative error of the loss, and relative L2 error of its gradient, that a peer may have: bfloat16
# rounds the gradient.
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-5, 1e-2)}

Clock = Callable[[Callable[[], object]], float]


class Meter(NamedTuple):
    """A device, and how it is timed."""

    device: str
    busy: Clock  # the time of the device
    done: Clock  # from the call until the device has done the work
    host: Clock  # from the call until it returns
    rounds: int


class Case(NamedTuple):
    """A size, a dtype, and whether torch.compile, which takes long to compile, is a peer."""

    shape: tuple[int, ...]
    compiled: bool = False
    dtype: torch.dtype = torch.float32


CASES = {
    "160x192x160": Case((1, 1, 160, 192, 160), compiled=True),
    "256x256x256": Case((1, 1, 256, 256, 256), compiled=True),
    "128x128x128": Case((1, 1, 128, 128, 128)),
    "240x240x155": Case((1, 1, 240, 240, 155)),
    "16 x 256x256": Case((16, 1, 256, 256), compiled=True),
    "1 x 256x256": Case((1, 1, 256, 256), compiled=True),
    "160x192x160 bfloat16": Case((1, 1, 160, 192, 160), dtype=torch.bfloat16),
    "256x256x256 bfloat16": Case((1, 1, 256, 256, 256), compiled=True, dtype=torch.bfloat16),
}
LARGE = ("160x192x160", "256x256x256")


def eager(input: Tensor, target: Tensor) -> Tensor:
    """The formula in float32, as autocast computes losses."""
    return eager_ngf_loss(input.float(), target.float())


def images(case: Case, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    input, target = (torch.rand(case.shape, generator=generator, device=device) for _ in range(2))
    return input.to(case.dtype), target.to(case.dtype)


def compare(calls: dict[str, Callable[[], object]], meter: Meter, clock: Clock) -> dict[str, float]:
    """Milliseconds of each call."""
    for call in calls.values():
        call()
    return dict(zip(calls, median_times([*calls.values()], meter.rounds, clock=clock), strict=True))


def errors(
    function: LossFunction, input: Tensor, target: Tensor, exact: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """Relative error of the loss and relative L2 error of the gradient. Raises if one is large."""
    loss, gradient = loss_and_gradient(function, input, target)
    found = {
        "loss": abs(loss.item() / exact[0].item() - 1),
        "gradient": ((gradient - exact[1]).norm() / exact[1].norm()).item(),
    }
    for error, bound in zip(found.values(), TOLERANCES[input.dtype], strict=True):
        if not error <= bound:
            raise AssertionError(f"{function} is wrong: {found}")
    return found


def measure(case: Case, meter: Meter) -> dict[str, Any]:
    """One row: a training step and the loss alone, in time and memory."""
    torch.compiler.reset()  # a function is compiled for so many shapes and then no more
    input, target = images(case, meter.device)
    volume = input.numel() * input.element_size()
    functions: dict[str, LossFunction] = {"fused": nec_ext.ngf_loss, "eager": eager}
    if case.compiled:
        compiled = torch.compile(eager, dynamic=False)
        try:
            loss_and_gradient(compiled, input, target)
        except Exception as error:  # a missing or broken compiler shows in errors of many types
            print(f"torch.compile failed: {error}")
        else:
            functions["compiled"] = compiled
    exact = loss_and_gradient(nec_ext.reference.ngf_loss, input.double(), target.double())
    accuracy = {name: errors(f, input, target, exact) for name, f in functions.items()}
    del exact
    steps: dict[str, Callable[[], object]] = {
        name: partial(loss_and_gradient, function, input, target)
        for name, function in functions.items()
    }
    forward = partial(forward_only, nec_ext.ngf_loss, input, target)
    row = {
        "shape": case.shape,
        "dtype": str(case.dtype)[6:],
        "errors": accuracy["fused"],
        "busy_ms": compare({**steps, "move": lambda: torch.add(input, target)}, meter, meter.busy),
        "done_ms": compare(steps, meter, meter.done),
        "host_ms": compare(steps, meter, meter.host),
        "forward_ms": compare(
            {"fused": forward, "read": lambda: (input.sum(), target.sum())}, meter, meter.busy
        ),
        "peak_volumes": {
            name: peak_memory(step, meter.device) / volume for name, step in steps.items()
        },
        "saved_volumes": saved_memory(nec_ext.ngf_loss, input, target) / volume,
        "forward_peak_volumes": peak_memory(forward, meter.device) / volume,
    }
    if meter.device == "cuda":
        leaf = input.clone().requires_grad_()
        row["kernels"] = kernels(lambda: nec_ext.ngf_loss(leaf, target))
    row["gb_per_s"] = 3 * volume / row["busy_ms"]["fused"] / 1e6
    row["forward_gb_per_s"] = 2 * volume / row["forward_ms"]["fused"] / 1e6
    return row


def measure_variants(case: Case, meter: Meter) -> dict[str, float]:
    """Milliseconds of a step with options that ask for more."""
    input, target = images(case, meter.device)
    mask = torch.rand_like(input)
    eps = 0.1 + torch.rand_like(input)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "spacing": {"spacing": (1.0, 0.9, 0.8)},
        "quadrature": {"eps_mode": "quadrature"},
        "forward": {"operator": "forward"},
        "sobel": {"operator": "sobel"},
        "bool mask": {"mask": mask > 0.5},
        "float32 mask": {"mask": mask},
        "eps per voxel": {"eps": eps},
    }
    calls: dict[str, Callable[[], object]] = {
        name: partial(loss_and_gradient, partial(nec_ext.ngf_loss, **given), input, target)
        for name, given in options.items()
    }
    leaves = [image.clone().requires_grad_() for image in (input, target)]
    calls["both gradients"] = lambda: torch.autograd.grad(nec_ext.ngf_loss(*leaves), leaves)
    half = input.half(), target.half()
    calls["float16"] = partial(loss_and_gradient, nec_ext.ngf_loss, *half)
    return compare(calls, meter, meter.busy)


def copy_bandwidth(elements: int, meter: Meter) -> float:
    """GB per second of a copy of float32, bytes read and bytes written."""
    source = torch.rand(elements, device=meter.device)
    copy = torch.empty_like(source)
    return 8 * elements / compare({"": lambda: copy.copy_(source)}, meter, meter.busy)[""] / 1e6


def yardsticks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was wanted, what was measured, and whether the one is the other."""
    found: list[dict[str, Any]] = []

    def judge(name: str, goal: str, measured: float, reached: bool) -> None:
        found.append({"name": name, "goal": goal, "measured": measured, "reached": reached})

    def at_least(name: str, measured: float, goal: float) -> None:
        judge(name, f">= {goal:g}", measured, measured >= goal)

    def at_most(name: str, measured: float, goal: float) -> None:
        judge(name, f"<= {goal:.3g}", measured, measured <= goal)

    rows = results["rows"]
    for size in LARGE:
        row = rows[size]
        times = row["busy_ms"]
        megabyte = MEGABYTE / (torch.Size(row["shape"]).numel() * 4)
        at_least(f"{size}: compiled / fused", times.get("compiled", 0) / times["fused"], 3.5)
        at_least(f"{size}: eager / fused", times["eager"] / times["fused"], 20)
        read = row["forward_ms"]
        at_most(f"{size}: loss alone / reading both", read["fused"] / read["read"], 1.25)
        at_most(f"{size}: peak volumes", row["peak_volumes"]["fused"], 1 + megabyte)
        at_most(f"{size}: saved volumes", row["saved_volumes"], 1 + megabyte)
        at_most(f"{size}: loss alone, peak volumes", row["forward_peak_volumes"], megabyte)
        at_most(f"{size}: relative error of the loss", row["errors"]["loss"], 1e-6)
        at_most(f"{size}: relative L2 error of the gradient", row["errors"]["gradient"], 1e-5)
    times = rows["256x256x256"]["busy_ms"]
    at_most("256x256x256: fused / move", times["fused"] / times["move"], 1.25)
    times = rows["16 x 256x256"]["busy_ms"]
    at_least("16 x 256x256: compiled / fused", times.get("compiled", 0) / times["fused"], 3)
    # One for the loss and its gradient, one for the sum; none would mean that none was seen.
    launched = len(rows["1 x 256x256"].get("kernels", []))
    judge("1 x 256x256: kernels", "= 2", launched, launched == 2)
    return found


def facts() -> dict[str, Any]:
    """Where and with what the results were measured. Clocks are read, and left as they are."""

    def output(*command: str) -> str | None:
        try:
            return subprocess.run(
                command, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"
    found = output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0") or ""
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none (a dry run)",
        "nvidia_smi": dict(zip(query.split(","), found.split(", "), strict=False)),
        "torch_cuda": torch.version.cuda,
        "build": nec_ext.build_info(),
        "commit": output("git", "describe", "--always", "--dirty"),
    }


def main() -> None:
    """Measures everything and writes it, row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    cases, large_copy = CASES, 2**28
    if arguments.dry_run:
        meter = Meter("cpu", seconds, seconds, seconds, rounds=3)
        cases = {
            name: case._replace(shape=(*case.shape[:2], *(n // 16 for n in case.shape[2:])))
            for name, case in CASES.items()
        }
        large_copy = 2**20
    else:
        meter = Meter("cuda", ColdGpu().seconds, seconds_until_done, seconds_of_host, rounds=30)

    results: dict[str, Any] = {**facts(), "rows": {}}

    def write() -> None:
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps(results, indent=2) + "\n")

    results["copy_gb_per_s"] = copy_bandwidth(large_copy, meter)
    for name, case in cases.items():
        results["rows"][name] = measure(case, meter)
        print(name, json.dumps(results["rows"][name]["busy_ms"]), flush=True)
        write()
    results["variants_ms"] = measure_variants(cases["256x256x256"], meter)
    results["yardsticks"] = yardsticks(results)
    write()
    reached = sum(yardstick["reached"] for yardstick in results["yardsticks"])
    print(f"{reached} of {len(results['yardsticks'])} yardsticks reached")


if __name__ == "__main__":
    main()
