# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""``python -m nec_ext``: facts, a check and a timing, to paste into a bug report."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from . import _ops, build_info, ngf_loss, reference

SHAPES = ((4, 1, 256, 256), (1, 1, 96, 96, 96))
OPERATORS = ("central", "forward", "sobel")
# Of the float32 loss and its gradient against the float64 reference: relative, and relative L2.
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-6, 1e-5
ROUNDS = 5


def main() -> int:
    """Exit code 0 if the fused loss agrees with its reference, else 1."""
    for name, value in build_info().items():
        print(f"{name:<20} {value}")
    print(f"{'threads':<20} {torch.get_num_threads()}")
    exact = _compare("cpu")
    if _ops.HAS_CUDA and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        print(f"\n{torch.cuda.get_device_name()}, compute capability {major}.{minor}")
        exact &= _compare("cuda")
    print("\nthe fused loss agrees with its reference" if exact else "\nthe fused loss is WRONG")
    return 0 if exact else 1


def _compare(device: str) -> bool:
    """Prints errors and times on a device; False if an error is too large."""
    print(f"\n{device:<28} {'loss error':>10} {'gradient':>9} {'fused ms':>9} {'reference':>9}")
    exact = True
    for shape in SHAPES:
        for operator in OPERATORS:
            loss_error, gradient_error, fused_ms, reference_ms = _examine(device, shape, operator)
            exact &= loss_error <= LOSS_TOLERANCE and gradient_error <= GRADIENT_TOLERANCE
            name = "x".join(map(str, shape))
            print(
                f"{name:<18} {operator:<9} {loss_error:10.0e} {gradient_error:9.0e} "
                f"{fused_ms:9.2f} {reference_ms:9.2f}"
            )
    return exact


def _examine(
    device: str, shape: tuple[int, ...], operator: str
) -> tuple[float, float, float, float]:
    """Relative errors of loss and gradient, and milliseconds of a step, fused and reference."""
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
    if input.is_cuda:  # whose clock runs on its own
        torch.cuda.synchronize()
    return loss.detach(), gradient


if __name__ == "__main__":
    sys.exit(main())
