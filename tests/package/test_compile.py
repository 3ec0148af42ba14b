# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""torch.compile, export, autocast, and torch's own checks of the ops."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from covering import covering
from helpers import (
    REDUCTIONS,
    WANTED,
    assert_gradient_close,
    assert_loss_close,
    assert_result_close,
    evaluate,
    expected_result,
    random_upstream,
)
from inputs import LAYOUTS, SMALL, Case, by_name, generator
from ops import TESTS, op_arguments
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode

import nec_ext


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch.compiler.reset()


def compiled(**options: Any) -> Any:
    """Compile the loss as one graph; without inductor, whose C++ compiler takes seconds."""
    options = {"backend": "aot_eager", "fullgraph": True, **options}
    return torch.compile(nec_ext.ngf_loss, **options)


def assert_as_reference(function: Any, input: Tensor, target: Tensor, **options: Any) -> None:
    wanted = options.pop("wanted", "both")
    actual = evaluate(function, input, target, wanted=wanted, **options)
    assert_result_close(actual, expected_result(input, target, wanted=wanted, **options))


@covering(wanted=WANTED, reduction=REDUCTIONS, case=SMALL, dtype=[torch.float32, torch.float16])
def test_fullgraph(wanted: str, reduction: str, case: Case, dtype: torch.dtype) -> None:
    rng = generator("compile")
    options = {
        "mask": torch.rand(case.shape, generator=rng),
        "eps": 0.1 + torch.rand(case.shape[1:2] + (1,) * (len(case.shape) - 2), generator=rng),
        "target_eps": 0.3,
        "spacing": 1.3,
        "weight": 0.7,
        "operator": "sobel",
        "eps_mode": "quadrature",
    }
    assert_as_reference(
        compiled(), *case.images(dtype), wanted=wanted, reduction=reduction, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "reduction"), [(SMALL[0], "mean"), (SMALL[1], "sum"), (SMALL[1], "none")]
)
def test_inductor(case: Case, reduction: str) -> None:
    function = compiled(backend="inductor")
    assert_as_reference(function, *case.images(), reduction=reduction, weight=0.7)
    assert_as_reference(function, *case.images(torch.bfloat16), reduction=reduction)


@pytest.mark.slow
def test_inductor_with_neighbours_in_the_graph() -> None:
    input, target = SMALL[1].images()
    mask = torch.rand(SMALL[1].shape, generator=generator("mask")) > 0.3

    def step(loss: Any, image: Tensor, other: Tensor) -> Tensor:
        return 3 * loss(torch.tanh(image), other * 2, mask=mask) + image.square().mean()

    function = torch.compile(lambda *images: step(nec_ext.ngf_loss, *images), fullgraph=True)
    expected = evaluate(
        lambda *images: step(nec_ext.reference.ngf_loss, *images),
        input.double(),
        target.double(),
        -0.7,
    )
    assert_result_close(evaluate(function, input, target, -0.7), expected)


@pytest.mark.parametrize(
    "case", [case for case in LAYOUTS if case.name.endswith("3d")], ids=lambda case: case.name
)
def test_layouts(case: Case) -> None:
    assert_as_reference(compiled(), *case.images())


def test_dynamic_shapes_are_compiled_once() -> None:
    counter = CompileCounterWithBackend("aot_eager")
    function = compiled(backend=counter, dynamic=True)
    counts = set()
    for shape in [(2, 3, 9, 7), (3, 2, 12, 31), (4, 5, 6, 8)]:
        assert_as_reference(function, *Case("dynamic", shape).images())
        counts.add(counter.frame_count)
    assert len(counts) == 1


@pytest.mark.parametrize("name", ["eps", "target_eps", "weight", "spacing"])
def test_numbers_may_change_between_calls(name: str) -> None:
    """From the second value on, torch.compile makes the number a symbol."""
    function = compiled()
    for value in (0.3, 0.4, 0.7):
        assert_as_reference(function, *SMALL[0].images(), **{name: value})


def test_one_tensor_in_two_places() -> None:
    """One operation that takes a tensor twice is refused by the compiler."""
    image, _ = SMALL[0].images()
    eps = 0.1 + torch.rand(SMALL[0].shape, generator=generator("eps"))
    for options in ({}, {"eps": eps}, {"eps": eps, "target_eps": eps, "mask": eps}):
        leaf, wide = image.clone().requires_grad_(), image.double().requires_grad_()
        (gradient,) = torch.autograd.grad(
            compiled()(leaf, leaf, **options), leaf, torch.tensor(-0.7)
        )
        loss = -0.7 * nec_ext.reference.ngf_loss(wide, wide, **options)
        assert_gradient_close(gradient, torch.autograd.grad(loss, wide)[0])


def test_module_compiles() -> None:
    module = nec_ext.NGFLoss(eps=torch.full((3, 1, 1), 0.2), spacing=(1.0, 2.0))
    images = SMALL[0].images()
    function = torch.compile(module, backend="aot_eager", fullgraph=True)
    options = {"eps": torch.full((3, 1, 1), 0.2), "spacing": (1.0, 2.0)}
    assert_result_close(evaluate(function, *images), expected_result(*images, **options))


@pytest.mark.parametrize("first", ["mean", "sum"])
def test_compiled_backward_twice(first: str) -> None:
    input, target = SMALL[1].images()
    input.requires_grad_()
    loss = compiled()(input, target, reduction=first)
    for upstream in (-0.7, 2.0):
        (gradient,) = torch.autograd.grad(loss, input, torch.tensor(upstream), retain_graph=True)
        expected = expected_result(input, target, upstream, "input", reduction=first).grad_input
        assert_gradient_close(gradient, expected)


def test_bad_values_are_nan_where_python_may_not_look() -> None:
    input, target = SMALL[0].images()
    eps, mask = torch.full(SMALL[0].shape, 0.2), torch.ones(SMALL[0].shape)
    eps[0, 0, 2, 3], mask[1, 2, 0, 0] = -0.2, -1
    for options in ({"eps": eps}, {"target_eps": eps}, {"mask": mask}, {"eps": eps * 0}):
        assert compiled()(input, target, **options).isnan()
        assert compiled()(input, target, reduction="sum", **options).isnan()


def test_export() -> None:
    class Loss(torch.nn.Module):
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return nec_ext.ngf_loss(input, target, operator="sobel", reduction="none")

    images = SMALL[1].images()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Loss(), images, dynamic_shapes=({0: batch}, {0: batch}))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("nec_ext.ngf_forward" in call for call in calls)
    more = [torch.cat([image] * 2) for image in images]
    expected = nec_ext.reference.ngf_loss(
        *(image.double() for image in more), operator="sobel", reduction="none"
    )
    assert_loss_close(program.module()(*more), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    source, target = SMALL[0].images()
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    with torch.autocast("cpu", dtype):
        output = network(source)
        loss = nec_ext.ngf_loss(output, target)
    assert output.dtype == dtype
    assert loss.dtype == torch.float32
    output.retain_grad()
    loss.backward(torch.tensor(-1.5))
    expected = expected_result(output, target, -1.5, "input")
    assert_loss_close(loss, expected.loss)
    assert_gradient_close(output.grad, expected.grad_input)
    assert network.weight.grad.count_nonzero() > 0


# --- torch's own checks ---------------------------------------------------------------------------


class Checked(NamedTuple):
    """Images and maps that an op is called with."""

    name: str  # of the case
    input: torch.dtype
    target: torch.dtype
    has_maps: bool

    def arguments(self) -> tuple[Case, list[Tensor | None], list[Any]]:
        """Return the case, the tensors and the settings."""
        (case,) = by_name(self.name)
        tensors, settings = op_arguments(case, (self.input, self.target), self.has_maps)
        return case, [tensor if tensor is None else tensor.detach() for tensor in tensors], settings


CHECKED = [
    Checked("noise_2d", torch.float32, torch.float32, False),
    Checked("noise_3d", torch.float64, torch.float64, True),
    Checked("channels_last_2d", torch.float16, torch.float32, True),
    Checked("strided_3d", torch.float32, torch.float64, False),
    Checked("transposed_3d", torch.bfloat16, torch.bfloat16, True),
    Checked("expanded_2d", torch.float32, torch.float32, False),
]
GRADIENTS = [(True, False), (False, True), (True, True)]


@covering(checked=CHECKED, wanted=[(False, False), *GRADIENTS], reduction=range(3))
def test_opcheck_forward(checked: Checked, wanted: tuple[bool, bool], reduction: int) -> None:
    _, tensors, settings = checked.arguments()
    arguments = (*tensors, *settings, reduction, reduction == 1, *wanted)
    torch.library.opcheck(torch.ops.nec_ext.ngf_forward.default, arguments, test_utils=TESTS)


@covering(checked=CHECKED, wanted=GRADIENTS)
def test_opcheck_backward(checked: Checked, wanted: tuple[bool, bool]) -> None:
    case, tensors, settings = checked.arguments()
    dtype = torch.promote_types(torch.promote_types(checked.input, checked.target), torch.float32)
    upstream = random_upstream(case.shape if checked.has_maps else (), dtype)
    arguments = (upstream, *tensors, *settings, *wanted)
    torch.library.opcheck(torch.ops.nec_ext.ngf_backward.default, arguments, test_utils=TESTS)


@covering(mode=["fake", "meta"], reduction=REDUCTIONS)
def test_tensors_without_data(mode: str, reduction: str) -> None:
    """Tools that plan the memory of a training step use such tensors."""
    case = SMALL[1]
    with FakeTensorMode() if mode == "fake" else torch.device("meta"):
        input, target, mask = (torch.empty(case.shape, dtype=torch.float16) for _ in range(3))
        loss = nec_ext.ngf_loss(input.requires_grad_(), target, reduction=reduction, mask=mask)
        (gradient,) = torch.autograd.grad(loss, input, torch.ones_like(loss))
    assert (loss.shape, loss.dtype) == (case.shape if reduction == "none" else (), torch.float32)
    assert (gradient.shape, gradient.dtype) == (case.shape, torch.float16)
