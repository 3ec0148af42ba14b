# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The race of a case: calls that take turns, so that all of them meet the same machine.

The first call runs under pytest-benchmark, and the others take their turns in its setup.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from examples.common.measure import LossFunction, loss_and_gradient, peak_memory

from .measure import Meter, saved_memory, seconds
from .rows import fastest, median

FEWEST_ROUNDS, MOST_ROUNDS = 7, 100
# A peer may have these relative errors of the loss and relative L2 errors of its gradient. The
# gradient of a bfloat16 image is rounded to bfloat16.
TOLERANCES = {torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-5, 1e-2)}

Call = Callable[[], object]


def steps(functions: dict[str, LossFunction], *images: Tensor) -> dict[str, Call]:
    """Make a call of one training step for each loss."""
    return {name: partial(loss_and_gradient, f, *images) for name, f in functions.items()}


class Race:
    """The measurement of one case, and its row of the results: the fixture ``race``.

    Attributes:
        row: the facts and figures of the case; it becomes ``extra_info`` of pytest-benchmark.
    """

    def __init__(self, benchmark: Any, meter: Meter, device: str, quick: bool) -> None:
        self.benchmark = benchmark
        self.meter = meter
        self.device = device
        self.quick = quick
        self.row: dict[str, Any] = benchmark.extra_info
        self.row["goals"] = []

    def images(
        self, shape: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Make two images of noise: no formula's time depends on the values of its images."""
        if self.quick:
            shape = (*shape[:2], *(max(8, n // 16) for n in shape[2:]))
        self.row.update(shape=list(shape), dtype=str(dtype).removeprefix("torch."))
        generator = torch.Generator(self.device).manual_seed(0)
        input, target = (
            torch.rand(shape, generator=generator, device=self.device) for _ in range(2)
        )
        return input.to(dtype), target.to(dtype)

    def compiled(self, calls: dict[str, Callable[[], Any]]) -> Iterator[tuple[str, Any]]:
        """Make each call once; yield the names and results of those that torch can compile.

        The row gets ``not compiled``: the names of the others.
        """
        for name, call in calls.items():
            try:
                result = call()
            except BackendCompilerFailed:
                self.row.setdefault("not compiled", []).append(name)
                continue
            yield name, result

    def times(self, calls: dict[str, Call], budget: float = 10.0) -> None:
        """Time all calls, in rounds in which each has one turn, for about ``budget`` seconds.

        The row gets ``ms``: quartiles of each call in milliseconds.
        """
        for call in calls.values():  # the first call maps memory that later ones use again
            call()
        times: dict[str, list[float]] = {name: [] for name in calls}
        first, *others = calls
        order = deque(others)

        def turns_of_the_others() -> None:
            # A call finds caches and allocator as the one before it left them. With an order that
            # rotates, that is another call in each round.
            order.rotate(1)
            for name in order:
                times[name].append(seconds(calls[name], self.meter))
            self.meter.prepare()

        if self.device == "cuda":  # a GPU's times vary less than a CPU's
            budget /= 5
        round_time = sum(seconds(call, self.meter) for call in calls.values())
        rounds = min(max(int(budget / round_time), FEWEST_ROUNDS), MOST_ROUNDS)
        self.benchmark.pedantic(
            calls[first], setup=turns_of_the_others, rounds=2 if self.quick else rounds
        )
        times[first] = self.benchmark.stats.stats.data
        self.row["ms"] = {
            name: [round(1e3 * t, 6) for t in statistics.quantiles(record, n=4, method="inclusive")]
            for name, record in times.items()
        }

    def check(
        self, functions: dict[str, LossFunction], exact: LossFunction, *images: Tensor
    ) -> dict[str, LossFunction]:
        """Compare losses and gradients with those of ``exact`` in float64; raise if one is wrong.

        The row gets ``errors``: relative error of the loss, relative L2 error of the gradient.

        Returns:
            the functions that torch can compile.
        """
        exact_loss, exact_gradient = loss_and_gradient(exact, *(image.double() for image in images))
        self.row["errors"] = {}
        for name, (loss, gradient) in self.compiled(steps(functions, *images)):
            errors = {
                "loss": abs(loss.item() / exact_loss.item() - 1),
                "gradient": ((gradient - exact_gradient).norm() / exact_gradient.norm()).item(),
            }
            bounds = TOLERANCES[images[0].dtype]
            if not all(
                error <= bound for error, bound in zip(errors.values(), bounds, strict=True)
            ):
                raise AssertionError(f"{name} is wrong: {errors}")
            self.row["errors"][name] = errors
        return {name: functions[name] for name in self.row["errors"]}

    def memory(self, functions: dict[str, LossFunction], *images: Tensor) -> None:
        """Measure the memory of a training step with each function.

        The row gets ``memory``: the peak, and the tensors that forward saves for backward, in
        volumes above the images.
        """
        volume = images[0].numel() * images[0].element_size()
        self.row["memory"] = {
            name: {
                "peak": self.peak(lambda f=function: loss_and_gradient(f, *images)) / volume,
                "saved": saved_memory(function, *images) / volume,
            }
            for name, function in functions.items()
        }

    def peak(self, call: Call) -> int:
        """Measure the bytes at the worst moment of a call, less those before it."""
        return peak_memory(call, self.device)

    def ratio(self, peer: str, to: str = "fused") -> float:
        """Return the median time of a peer's fastest formulation, relative to another call's."""
        return median(self.row, fastest(self.row, peer)) / median(self.row, to)

    def at_least(self, name: str, measured: float, goal: float) -> None:
        """Judge a figure that has to reach a goal."""
        self._judge(name, f">= {goal:.3g}", measured, measured >= goal)

    def at_most(self, name: str, measured: float, goal: float) -> None:
        """Judge a figure that must not exceed a goal."""
        self._judge(name, f"<= {goal:.3g}", measured, measured <= goal)

    def _judge(self, name: str, goal: str, measured: float, reached: bool) -> None:
        self.row["goals"].append(
            {"name": name, "goal": goal, "measured": measured, "reached": reached}
        )
