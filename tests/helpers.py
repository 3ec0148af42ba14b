# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Helpers of the test files: a loss with its gradients, and its judgement against an oracle."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from inputs import Case, Shape, generator
from oracle import loop_loss
from tolerances import TOLERANCES
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import nec_ext
from nec_ext._arguments import CHOICES

OPERATORS = CHOICES["operator"]
# The modes of the squared form, whose loss is at least 1/2: relative errors mean something.
EPS_MODES = CHOICES["eps_mode"][:2]
FORMULAS = {"operator": OPERATORS, "eps_mode": EPS_MODES}
ALL_FORMULAS = {"operator": OPERATORS, "eps_mode": CHOICES["eps_mode"], "form": CHOICES["form"]}
REDUCTIONS = ("mean", "sum", "none")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
WANTED = ("input", "target", "both")
ROOT = Path(__file__).resolve().parent.parent
# Of torch's checks of an op; gradients do not belong to it: they are the autograd function's.
TESTS = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")


class Result(NamedTuple):
    loss: Tensor
    grad_input: Tensor | None
    grad_target: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]


def evaluate(
    function: Callable[..., Tensor],
    input: Tensor,
    target: Tensor,
    upstream: Tensor | float | None = None,
    wanted: str = "both",
    **options: Any,
) -> Result:
    """Return the loss and the gradients of ``upstream * loss``.

    Random by default: an upstream of 1 would hide a factor that is missing.
    """
    leaves = as_leaves(input, target, wanted)
    loss = function(*leaves, **options)
    if upstream is None:
        upstream = random_upstream(loss.shape)
    upstream = torch.as_tensor(upstream).to(loss).expand(loss.shape)
    required = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(loss, required, upstream))
    return Result(loss.detach(), *(next(found) if leaf.requires_grad else None for leaf in leaves))


def as_leaves(input: Tensor, target: Tensor, wanted: str) -> list[Tensor]:
    """Return the images in the same memory; those whose gradient is wanted require it."""
    return [
        image.detach().requires_grad_(wanted in (name, "both"))
        for name, image in (("input", input), ("target", target))
    ]


def copied(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor with its strides and gaps to a device."""
    length = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.as_strided((length,), (1,), 0).to(device)
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def random_upstream(shape: Shape, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw numbers of both signs, in [0.5, 2): not 1, and in float32, which all losses hold."""
    rng = generator(f"upstream {tuple(shape)}")
    size = 0.5 + 1.5 * torch.rand(shape, generator=rng)
    sign = torch.where(torch.rand(shape, generator=rng) < 0.5, -1.0, 1.0)
    return (size * sign).to(dtype)


def expected_result(input: Tensor, target: Tensor, *arguments: Any, **options: Any) -> Result:
    """Evaluate the reference in float64."""
    options = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in options.items()
    }
    images = input.double(), target.double()
    with threads(1):  # its many small operations would spend their time at barriers
        return evaluate(nec_ext.reference.ngf_loss, *images, *arguments, **options)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def assert_as_reference(
    function: Callable[..., Tensor], *images_and_more: Any, **options: Any
) -> Result:
    """Check a loss and its gradients against the reference, and return them."""
    found = evaluate(function, *images_and_more, **options)
    assert_result_close(found, expected_result(*images_and_more, **options))
    return found


def assert_as_loops(
    function: Callable[..., Tensor], input: Tensor, target: Tensor, **options: Any
) -> None:
    """Check a loss and its gradients against loops over voxels."""
    upstream = random_upstream(input.shape if options.get("reduction") == "none" else ())
    arrays = loop_loss(input, target, upstream, **options)
    expected = Result(*(torch.as_tensor(array.astype(float)) for array in arrays))
    assert_result_close(evaluate(function, input, target, upstream, **options), expected)


def check_fused(input: Tensor, target: Tensor, *arguments: Any, **options: Any) -> Result:
    """Check the fused loss, its gradients and their memory, and return them."""
    fused = assert_as_reference(nec_ext.ngf_loss, input, target, *arguments, **options)
    for gradient, image in ((fused.grad_input, input), (fused.grad_target, target)):
        if gradient is not None:
            like = torch.empty_like(image)
            assert (gradient.dtype, gradient.stride()) == (like.dtype, like.stride())
    has_double = torch.float64 in (input.dtype, target.dtype)
    assert fused.loss.dtype == (torch.float64 if has_double else torch.float32)
    return fused


def assert_result_close(actual: Result, expected: Result) -> None:
    assert_loss_close(actual.loss, expected.loss)
    for gradient, wanted in zip(actual[1:], expected[1:], strict=True):
        assert (gradient is None) == (wanted is None)
        if gradient is not None:
            assert_gradient_close(gradient, wanted)


def assert_loss_close(actual: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCES[actual.dtype]
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs()
    if actual.dim() == 0:
        assert error <= tolerance.loss * expected.abs(), f"{actual} in place of {expected}"
    else:
        bound = tolerance.per_voxel * max(1.0, expected.abs().max().item())
        assert error.max() <= bound, f"a voxel is off by {error.max():.3g}, bound {bound:.3g}"


def assert_gradient_close(actual: Tensor, expected: Tensor) -> None:
    """Check the relative L2 error, and the largest error relative to the largest element.

    The first sees a small error everywhere, the second an error at one voxel of many.
    """
    tolerance = TOLERANCES[actual.dtype]
    assert actual.shape == expected.shape
    expected = expected.double()
    # Divided by the largest, so that squares of very large and very small gradients stay in range.
    largest = expected.abs().max().item()
    scale = largest if largest > 0 else 1.0
    error = actual.double() / scale - expected / scale
    underflow = tolerance.underflow / scale
    worst, bound = error.abs().max().item(), tolerance.gradient_max * (largest > 0) + underflow
    assert worst <= bound, f"an element is off by {worst:.3g} of the largest, bound {bound:.3g}"
    norm = (expected / scale).norm().item()
    bound = tolerance.gradient_l2 * norm + underflow * error.numel() ** 0.5
    assert error.norm() <= bound, f"the error's length is {error.norm():.3g}, bound {bound:.3g}"


def assert_same_bits(actual: Result, expected: Result) -> None:
    for one, other in zip(actual.tensors, expected.tensors, strict=True):
        assert torch.equal(one, other)


def op_arguments(
    case: Case, dtypes: Any, maps: bool, requires_grad: bool = False, form: int = 0
) -> tuple[list[Any], list[Any]]:
    """Make the arguments that the ops have in common, as torch's checks of ops want them."""
    ndim = len(case.shape) - 2
    rng = generator("opcheck")
    given = [None] * 3
    if maps:
        given = [
            0.1 + torch.rand(case.shape, generator=rng),
            0.2 + torch.rand(case.shape[2:], generator=rng),
        ]
        given.append(torch.rand(case.shape, generator=rng) > 0.4)
    numbers = [int(maps), 2 - int(maps), form]  # eps mode, operator, form
    images = [image.requires_grad_(requires_grad) for image in case.images(*dtypes)]
    return [*images, *given], [0.15, 0.3, *numbers, [1.0, 0.8, 1.3][:ndim], 0.7]


def makes_tensors_on_gpu() -> bool:
    """Return whether tensors are made on the GPU, where tests of the CPU run once more."""
    return torch.get_default_device().type == "cuda"


def allocations(function: Callable[[], Any]) -> tuple[int, int, Any]:
    """Measure peak and final level in bytes above those before the call; return its result too."""
    if makes_tensors_on_gpu():
        torch.cuda.empty_cache()  # a cached block may be larger than what is asked for
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = function()
        peak = torch.cuda.max_memory_allocated()
        return peak - before, torch.cuda.memory_allocated() - before, result
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        result = function()
    level = peak = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            peak = max(peak, level)
    return peak, level, result


def run_python(
    *arguments: str, output: Any = subprocess.PIPE, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter, which chooses anew what a process chooses once."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=600,
        check=False,
    )
