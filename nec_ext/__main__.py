# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""``python -m nec_ext`` prints facts, a check and a timing for a bug report."""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from . import build_info, ngf_loss, reference
from ._arguments import CHOICES
from ._console import run_command
from ._devices import reason_here

SHAPES = ((1, 1, 256, 256), (1, 1, 64, 64, 64))
# Bounds of the float32 loss (relative) and its gradient (relative L2) against float64.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-6, 1e-5
ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; return exit code 0 if the fused loss agrees with its reference, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m nec_ext",
        description="Prints what was built and where it runs, checks loss and gradient against the "
        "float64 reference, and times a step of both in float32: in seconds, for a bug report.",
        epilog="Exit code 0 if the loss agrees with its reference on every device that has "
        "kernels, else 1.",
    )
    parser.parse_args(arguments)
    devices = _devices()
    facts = {
        **build_info(),
        "package": Path(__file__).parent,
        "python": f"{platform.python_version()}, {platform.platform()}",
        "cpu": _cpu_model(),
        "threads": torch.get_num_threads(),
        **{f"device {kind}": text for kind, text in devices.items()},
    }
    for name, value in facts.items():
        print(f"{name:<20} {value}", flush=True)
    checks = [_compare(kind) for kind in devices if reason_here(kind) is None]
    if not checks:
        print("\nngf_loss takes its reference: no device here has kernels")
    elif all(checks):
        print("\nthe fused loss agrees with its reference")
    else:
        print("\nthe fused loss is WRONG")
    return 0 if all(checks) else 1


def _devices() -> dict[str, str]:
    """Describe each type of device that torch has here, and say whether it has kernels."""
    kinds = ["cpu"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        kinds.append(accelerator.type)
    found = {}
    for kind in kinds:
        reason = reason_here(kind)
        found[kind] = "has kernels" if reason is None else f"takes the reference: {reason}"
        if kind == "cuda":
            major, minor = torch.cuda.get_device_capability()
            name = torch.cuda.get_device_name()
            found[kind] = f"{name}, compute capability {major}.{minor}, {found[kind]}"
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not on Linux
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _compare(device: str) -> bool:
    """Print errors and times on a device; return False if an error is too large."""
    print(
        f"\n{device:<28} {'loss, relative error':>20} {'gradient, relative L2':>21} "
        f"{'fused, ms':>9} {'reference, ms':>13}"
    )
    exact = True
    for shape in SHAPES:
        for operator in CHOICES["operator"]:
            loss_error, gradient_error, fused_ms, reference_ms = _examine(device, shape, operator)
            exact &= loss_error <= LOSS_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE
            name = "x".join(map(str, shape))
            print(
                f"{name:<18} {operator:<9} {loss_error:20.0e} {gradient_error:21.0e} "
                f"{fused_ms:9.2f} {reference_ms:13.2f}"
            )
    return exact


def _examine(
    device: str, shape: tuple[int, ...], operator: str
) -> tuple[float, float, float, float]:
    """Return the relative errors of loss and gradient, and the milliseconds of both steps."""
    generator = torch.Generator().manual_seed(0)
    input, target = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
    loss, gradient = _step(ngf_loss, input, target, operator)
    exact_loss, exact_gradient = _step(
        reference.ngf_loss, input.double(), target.double(), operator
    )
    loss_error = abs(loss / exact_loss - 1)
    gradient_error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for function, record in zip((ngf_loss, reference.ngf_loss), times, strict=True):
            start = time.perf_counter()
            _step(function, input, target, operator)
            record.append(1e3 * (time.perf_counter() - start))
    fused_ms, reference_ms = map(statistics.median, times)
    return loss_error.item(), gradient_error.item(), fused_ms, reference_ms


def _step(
    function: Callable[..., Tensor], input: Tensor, target: Tensor, operator: str
) -> tuple[Tensor, Tensor]:
    input = input.detach().requires_grad_()
    loss = function(input, target, operator=operator)
    (gradient,) = torch.autograd.grad(loss, input)
    if input.is_cuda:  # a GPU computes on after the call
        torch.cuda.synchronize()
    return loss.detach(), gradient


if __name__ == "__main__":
    run_command(main)
