# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Streams, graphs, threads, launches, and a training step."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from covering import covering
from gpu import DEVICE, all_on_gpu, on_gpu
from helpers import (
    DTYPES,
    Result,
    assert_gradient_close,
    assert_loss_close,
    assert_result_close,
    assert_same_bits,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import LARGE, SMALL, Case, brain, generator
from torch import Tensor, nn

import nec_ext
from benchmarks.measure import kernels

pytestmark = pytest.mark.cuda

CASE = Case("streams", (2, 1, 24, 30, 37))
MASK = torch.rand(CASE.shape, generator=generator("mask"))
EPS = 0.1 + torch.rand(CASE.shape[1:], generator=generator("eps"))
OPTIONS: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"reduction": "sum", "operator": "sobel"},
    "none": {"reduction": "none"},
    "bool_mask": {"mask": MASK > 0.3},
    "maps": {"mask": MASK, "eps": EPS, "target_eps": 0.3, "eps_mode": "quadrature"},
    "maps_none": {"mask": MASK, "eps": EPS, "reduction": "none"},
}
CYCLES = 400_000_000  # of a kernel that does nothing: a fifth of a second


class Problem:
    """A loss and its gradients by images that stay where they are in the GPU's memory."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.options = all_on_gpu(OPTIONS[name])
        self.images = [*map(on_gpu, CASE.images(dtype))]
        with torch.no_grad():
            loss = nec_ext.ngf_loss(*self.images, **self.options)
        # Of the loss' own dtype and device: a conversion would be a copy to the GPU.
        self.upstream = random_upstream(loss.shape).to(loss)

    def evaluate(self, images: list[Tensor] | None = None) -> Result:
        return evaluate(nec_ext.ngf_loss, *(images or self.images), self.upstream, **self.options)


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    """Let torch raise where it waits for the GPU; it does not see an extension that does."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@covering(name=[*OPTIONS], dtype=DTYPES)
def test_runs_on_the_current_stream_and_waits_for_nothing(name: str, dtype: torch.dtype) -> None:
    problem = Problem(name, dtype)
    expected = problem.evaluate()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        late = [torch.full_like(image, torch.nan) for image in problem.images]
        problem.evaluate(late)  # what is loaded and allocated once is there from now on
        stream.synchronize()
        torch.cuda._sleep(CYCLES)
        for image, content in zip(late, problem.images, strict=True):
            image.copy_(content)
        with waiting_is_an_error():
            actual = problem.evaluate(late)
        assert not stream.query()  # all of it was enqueued while the GPU slept
    stream.synchronize()
    assert_same_bits(actual, expected)


@covering(name=[*OPTIONS], dtype=DTYPES)
def test_graph(name: str, dtype: torch.dtype) -> None:
    """Forward and backward, captured once and replayed on other images."""
    problem = Problem(name, dtype)
    first = [image.clone() for image in problem.images]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # as torch asks for before a capture
        for _ in range(3):
            problem.evaluate()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = problem.evaluate()
    # An upstream of 1 needs no scaling, which the GPU finds out for itself in each replay.
    for factor, upstream in ((1.0, None), (0.5, 1.0), (-2.0, -0.7), (0.25, 1.0)):
        for image, content in zip(problem.images, first, strict=True):
            image.copy_(factor * content)
        if upstream is not None:
            problem.upstream.fill_(upstream)
        for result in captured:
            result.fill_(torch.nan)
        graph.replay()
        assert_same_bits(captured, problem.evaluate())
    assert_result_close(captured, expected_result(*problem.images, 1.0, **problem.options))


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_concurrent_calls_have_the_same_bits(dtype: torch.dtype) -> None:
    """From Python threads, each on a stream of its own: scratch memory is not shared."""
    pairs = [[*map(on_gpu, case.images(dtype))] for case in [*SMALL, *LARGE]]
    expected = [evaluate(nec_ext.ngf_loss, *images, -1.5) for images in pairs]
    torch.cuda.synchronize()

    def run(k: int) -> Result:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            result = evaluate(nec_ext.ngf_loss, *pairs[k % len(pairs)], -1.5)
        stream.synchronize()
        return result

    with ThreadPoolExecutor(4) as pool:
        for k, result in enumerate(pool.map(run, range(160))):
            assert_same_bits(result, expected[k % len(pairs)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_training_step_with_autocast_and_a_scaled_loss(dtype: torch.dtype) -> None:
    # The loss does not see a bias of the last layer: its gradient would be rounding and no more.
    last = nn.Conv3d(8, 1, 3, padding=1, bias=False)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), last).to(DEVICE)
    source, target = map(on_gpu, Case("training", (2, 1, 20, 24, 27), brain).images())
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**12)
    scale = scaler.get_scale()

    with torch.autocast(DEVICE.type, dtype):
        output = network(source)
        loss = nec_ext.ngf_loss(output, target)
    assert (output.dtype, loss.dtype) == (dtype, torch.float32)
    output.retain_grad()
    scaler.scale(loss).backward()
    expected = expected_result(output, target, scale, "input")
    assert_loss_close(loss, expected.loss)
    assert_gradient_close(output.grad, expected.grad_input)

    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == scale  # no gradient was infinite
    with torch.no_grad(), torch.autocast(DEVICE.type, dtype):
        assert nec_ext.ngf_loss(network(source), target) < loss


def test_launches_of_a_small_image() -> None:
    """One kernel for the loss and its gradient, one for the sum, one to scale."""
    input, target = map(on_gpu, Case("launches", (1, 1, 256, 256)).images())
    upstream = torch.tensor(0.5, device=DEVICE)
    nec_ext.ngf_loss(input, target)
    assert len(kernels(lambda: nec_ext.ngf_loss(input, target))) == 2
    input.requires_grad_()
    torch.autograd.grad(nec_ext.ngf_loss(input, target), input, upstream)
    assert len(kernels(lambda: nec_ext.ngf_loss(input, target))) == 2
    loss = nec_ext.ngf_loss(input, target)
    assert len(kernels(lambda: torch.autograd.grad(loss, input, upstream))) == 1
