# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""torch.compile, autocast, torch's own checks of the ops, export and traces."""

import io
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    REDUCTIONS,
    TESTS,
    WANTED,
    assert_as_reference,
    assert_gradient_close,
    assert_loss_close,
    assert_result_close,
    evaluate,
    expected_result,
    op_arguments,
    random_upstream,
)
from inputs import SMALL, Case, by_name, generator
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


@covering(
    wanted=WANTED,
    case=[*SMALL, *by_name("strided_3d", "transposed_3d", "expanded_3d")],
    dtype=[torch.float32, torch.float16],
    options={**ALL_FORMULAS, "reduction": REDUCTIONS},
)
def test_fullgraph(wanted: str, case: Case, dtype: torch.dtype, options: dict[str, Any]) -> None:
    rng = generator("compile")
    options = {
        **options,
        "mask": torch.rand(case.shape, generator=rng),
        "eps": 0.1 + torch.rand(case.shape[1:2] + (1,) * (len(case.shape) - 2), generator=rng),
        **{"target_eps": 0.3, "spacing": 1.3, "weight": 0.7},
    }
    assert_as_reference(compiled(), *case.images(dtype), wanted=wanted, **options)


@pytest.mark.slow
def test_inductor_with_neighbours_in_the_graph() -> None:
    input, target = SMALL[1].images()
    mask = torch.rand(SMALL[1].shape, generator=generator("mask")) > 0.3

    def step(loss: Any, image: Tensor, other: Tensor) -> Tensor:
        return 3 * loss(torch.tanh(image), other * 2, mask=mask) + image.square().mean()

    function = torch.compile(partial(step, nec_ext.ngf_loss), fullgraph=True)
    wide, plain = (input.double(), target.double()), partial(step, nec_ext.reference.ngf_loss)
    expected = evaluate(plain, *wide, -0.7)
    assert_result_close(evaluate(function, input, target, -0.7), expected)


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
    function = compiled()
    for value in (0.3, 0.4, 0.7):  # from the second on, torch.compile makes it a symbol
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
    options = {"eps": torch.full((3, 1, 1), 0.2), "spacing": (1.0, 2.0)}
    function = torch.compile(nec_ext.NGFLoss(**options), backend="aot_eager", fullgraph=True)
    images = SMALL[0].images()
    assert_result_close(evaluate(function, *images), expected_result(*images, **options))


def test_compiled_backward_twice() -> None:
    input, target = SMALL[1].images()
    loss = compiled()(input.requires_grad_(), target)
    for upstream in (-0.7, 2.0):
        (gradient,) = torch.autograd.grad(loss, input, torch.tensor(upstream), retain_graph=True)
        expected = expected_result(input, target, upstream, "input").grad_input
        assert_gradient_close(gradient, expected)


def test_bad_values_are_nan_where_python_may_not_look() -> None:
    input, target = SMALL[0].images()
    eps, mask = torch.full(SMALL[0].shape, 0.2), torch.ones(SMALL[0].shape)
    eps[0, 0, 2, 3], mask[1, 2, 0, 0] = -0.2, -1
    for options in ({"eps": eps}, {"target_eps": eps}, {"mask": mask}):
        for reduction in ("mean", "sum"):
            assert compiled()(input, target, reduction=reduction, **options).isnan()


@covering(formula=ALL_FORMULAS)
def test_autocast(formula: dict[str, str]) -> None:
    source, target = SMALL[0].images()
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(source)
        output.retain_grad()
        loss = nec_ext.ngf_loss(output, target, **formula)
    assert (output.dtype, loss.dtype) == (torch.bfloat16, torch.float32)
    loss.backward(torch.tensor(-1.5))
    expected = expected_result(output, target, -1.5, "input", **formula)
    assert_loss_close(loss, expected.loss)
    assert_gradient_close(output.grad, expected.grad_input)
    assert network.weight.grad.count_nonzero() > 0


F64, F32, F16, BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
# The name of a case, the dtypes of its images, and whether the op is called with maps.
CHECKED = [
    ("noise_2d", (F32, F32), False),
    ("noise_3d", (F64, F64), True),
    ("channels_last_2d", (F16, F32), True),
    ("strided_3d", (F32, F64), False),
    ("transposed_3d", (BF16, BF16), True),
    ("expanded_2d", (F32, F32), False),
]


@covering(
    checked=CHECKED, wanted=product([False, True], repeat=2), reduction=range(3), form=range(4)
)
def test_opcheck(checked: Any, wanted: tuple[bool, bool], reduction: int, form: int) -> None:
    name, dtypes, has_maps = checked
    (case,) = by_name(name)
    tensors, settings = op_arguments(case, dtypes, has_maps, form=form)
    given = (*tensors, *settings)
    forward = (*given, reduction, reduction == 1, *wanted)
    torch.library.opcheck(torch.ops.nec_ext.ngf_forward.default, forward, test_utils=TESTS)
    upstream = random_upstream(case.shape if has_maps else (), F64 if F64 in dtypes else F32)
    backward = (upstream, *given, *wanted)
    sums = (*given, 2, 0, case.shape[2], False, False, None, None)
    torch.library.opcheck(torch.ops.nec_ext.ngf_sums_.default, sums, test_utils=TESTS)
    if any(wanted):
        torch.library.opcheck(torch.ops.nec_ext.ngf_backward.default, backward, test_utils=TESTS)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [FakeTensorMode, partial(torch.device, "meta")])
def test_tensors_without_data(mode: Any, reduction: str) -> None:
    """Tools that plan the memory of a training step use such tensors."""
    case = SMALL[1]
    with mode():
        input, target, mask = (torch.empty(case.shape, dtype=torch.float16) for _ in range(3))
        loss = nec_ext.ngf_loss(input.requires_grad_(), target, reduction=reduction, mask=mask)
        (gradient,) = torch.autograd.grad(loss, input, torch.ones_like(loss))
    assert (loss.shape, loss.dtype) == (case.shape if reduction == "none" else (), torch.float32)
    assert (gradient.shape, gradient.dtype) == (case.shape, torch.float16)


# --- Graphs that outlive the call: they hold the bare ops, and give the gradient all the same -----


RECORDED: list[dict[str, Any]] = [
    {},
    {"reduction": "sum", "eps_mode": "quadrature", "weight": -1.5, "spacing": 0.7},
    {"reduction": "none", "operator": "sobel", "form": "cross"},
]


@pytest.mark.parametrize("options", RECORDED, ids=str)
@pytest.mark.parametrize("strict", [False, True])
def test_exported(strict: bool, options: dict[str, Any]) -> None:
    input, target, mask = torch.rand(3, 1, 1, 6, 5, 7, generator=generator("exported"))
    expected = expected_result(input, target, mask=mask, **options)
    program = torch.export.export(nec_ext.NGFLoss(**options), (input, target, mask), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    for module in (program.module(), torch.export.load(file).module()):
        found = evaluate(lambda i, t, m=module: m(i, t, mask), input, target)
        assert_result_close(found, expected)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("options", RECORDED, ids=str)
def test_traced(options: dict[str, Any]) -> None:
    input, target = torch.rand(2, 2, 1, 6, 7, generator=generator("traced"))
    for example in (input, input.clone().requires_grad_()):
        traced = torch.jit.trace(nec_ext.NGFLoss(**options), (example, target))
        found = evaluate(traced, input, target)
        assert_result_close(found, expected_result(input, target, **options))
