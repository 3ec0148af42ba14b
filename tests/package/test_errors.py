# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A wrong argument is refused in one sentence: its name, what was expected and what came."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EPS_MODES, OPERATORS

import nec_ext

SHAPE = (2, 3, 4, 5)
IMAGE = torch.linspace(-1, 1, 120).view(SHAPE)
VOLUME = IMAGE.view(2, 3, 4, 5, 1)


def as_leaf(image: Any) -> Any:
    """With a gradient, where it can have one."""
    is_float = isinstance(image, torch.Tensor) and image.is_floating_point()
    return image.detach().requires_grad_() if is_float else image


FUNCTIONS = [
    pytest.param(nec_ext.ngf_loss, id="fused"),
    pytest.param(nec_ext.reference.ngf_loss, id="reference"),
    pytest.param(lambda *a, **o: nec_ext.ngf_loss(*map(as_leaf, a), **o), id="gradient"),
    pytest.param(lambda i, t, mask=None, **o: nec_ext.NGFLoss(**o)(i, t, mask), id="module"),
]


def with_value(value: float) -> torch.Tensor:
    """Ones with one value among them."""
    tensor = torch.ones(SHAPE)
    tensor[1, 2, 3, 4] = value
    return tensor


FLOATS = "float32, float64, float16 or bfloat16"
SHAPES = "(B, C, H, W) or (B, C, D, H, W)"
# name of the argument, what is wrong with it, the error, its sentence after the name
IMAGE_CASES: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "must be a torch.Tensor, got NoneType"),
    (3, TypeError, "must be a torch.Tensor, got int"),
    (IMAGE.numpy(), TypeError, "must be a torch.Tensor, got ndarray"),
    (IMAGE.long(), TypeError, f"must be {FLOATS}, got int64"),
    (IMAGE > 0, TypeError, f"must be {FLOATS}, got bool"),
    (IMAGE.to(torch.complex64), TypeError, f"must be {FLOATS}, got complex64"),
    (IMAGE.to(torch.float8_e5m2), TypeError, f"must be {FLOATS}, got float8_e5m2"),
    (IMAGE.to_sparse(), TypeError, "must be a dense tensor, got layout torch.sparse_coo"),
    (IMAGE[0], ValueError, f"must have shape {SHAPES}, got 3 dimensions: (3, 4, 5)"),
    (
        IMAGE.view(1, 2, 3, 4, 5, 1),
        ValueError,
        f"must have shape {SHAPES}, got 6 dimensions: (1, 2, 3, 4, 5, 1)",
    ),
    (torch.empty(2, 3, 0, 5), ValueError, "must not be empty, got shape (2, 3, 0, 5)"),
]
TOO_LARGE = 10**309  # for a float
EPS_CASES: list[tuple[Any, type[Exception], str]] = [
    (0.0, ValueError, "must be positive and finite, got 0.0"),
    (-0.15, ValueError, "must be positive and finite, got -0.15"),
    (math.nan, ValueError, "must be positive and finite, got nan"),
    (math.inf, ValueError, "must be positive and finite, got inf"),
    (TOO_LARGE, ValueError, f"must be positive and finite, got {TOO_LARGE}"),
    ("0.15", TypeError, "must be a float or a tensor, got str"),
    (True, TypeError, "must be a float or a tensor, got bool"),
    ([0.1, 0.2], TypeError, "must be a float or a tensor, got list"),
    (np.ones(3), TypeError, "must be a float or a tensor, got ndarray"),
    (with_value(0), ValueError, "must be positive and finite, got a value of 0.0"),
    (with_value(-2), ValueError, "must be positive and finite, got a value of -2.0"),
    (with_value(math.nan), ValueError, "must be positive and finite, got a value of nan"),
    (torch.tensor(0.0), ValueError, "must be positive and finite, got a value of 0.0"),
]
MAP_CASES: list[tuple[Any, type[Exception], str]] = [
    (IMAGE.to(torch.complex64), TypeError, "must be real, got complex64"),
    (IMAGE.to_sparse(), TypeError, "must be a dense tensor, got layout torch.sparse_coo"),
    (IMAGE.to("meta"), ValueError, "must be on the device of the images, cpu, got meta"),
    (
        torch.ones(SHAPE, requires_grad=True),
        ValueError,
        "must not require a gradient, none is computed for it: detach it",
    ),
    *(
        (
            torch.ones(shape),
            ValueError,
            f"must be broadcastable to the images of shape {SHAPE}, got shape {shape}",
        )
        for shape in [(5, 4), (2, 3), (3, 3, 4, 5), (1, 2, 3, 4, 5), (1, 1, 1, 1, 1), (0,)]
    ),
]
MASK_CASES: list[tuple[Any, type[Exception], str]] = [
    (1.0, TypeError, "must be a torch.Tensor, got float"),
    (with_value(-2), ValueError, "must not be negative, got a value of -2.0"),
    (with_value(-2).long(), ValueError, "must not be negative, got a value of -2.0"),
    (with_value(math.nan), ValueError, "must not be negative, got a value of nan"),
]
SPACING = "must be a number or one"
SPACING_CASES: list[tuple[Any, type[Exception], str]] = [
    (0, ValueError, "must be positive and finite, got 0"),
    (math.nan, ValueError, "must be positive and finite, got nan"),
    (math.inf, ValueError, "must be positive and finite, got inf"),
    ((1.0, 0.0), ValueError, "must be positive and finite, got (1.0, 0.0)"),
    (TOO_LARGE, ValueError, f"must be positive and finite, got {TOO_LARGE}"),
    ((1.0, 2.0, 3.0), ValueError, f"{SPACING} for each of 2 spatial axes, got (1.0, 2.0, 3.0)"),
    ((1.0, None), TypeError, f"{SPACING} per spatial axis, got (1.0, None)"),
    (("a", "b"), TypeError, f"{SPACING} per spatial axis, got ('a', 'b')"),
    ("11", TypeError, f"{SPACING} per spatial axis, got '11'"),
    (("1", "1"), TypeError, f"{SPACING} per spatial axis, got ('1', '1')"),
    (True, TypeError, f"{SPACING} per spatial axis, got True"),
    (np.ones((2, 2)), TypeError, f"{SPACING} per spatial axis, got ndarray"),
    (torch.tensor(1.0), TypeError, f"{SPACING} per spatial axis, got tensor(1.)"),
    (1j, TypeError, f"{SPACING} per spatial axis, got 1j"),
]
WEIGHT_CASES: list[tuple[Any, type[Exception], str]] = [
    (math.nan, ValueError, "must be finite, got nan"),
    (-math.inf, ValueError, "must be finite, got -inf"),
    (-TOO_LARGE, ValueError, f"must be finite, got -{TOO_LARGE}"),
    ("1", TypeError, "must be a float, got str"),
    (None, TypeError, "must be a float, got NoneType"),
    (torch.tensor(1.0), TypeError, "must be a float, got Tensor"),
]
CHOICES = {
    "eps_mode": ", ".join(map(repr, EPS_MODES)),
    "operator": ", ".join(map(repr, OPERATORS)),
    "reduction": "'none', 'mean', 'sum'",
}

CASES: list[tuple[str, Any, type[Exception], str]] = [
    *(("input", *case) for case in IMAGE_CASES),
    *(("target", *case) for case in IMAGE_CASES),
    (
        "target",
        IMAGE[:1],
        ValueError,
        "must have the shape of input, (2, 3, 4, 5), got (1, 3, 4, 5)",
    ),
    (
        "target",
        IMAGE.mT,
        ValueError,
        "must have the shape of input, (2, 3, 4, 5), got (2, 3, 5, 4)",
    ),
    (
        "target",
        VOLUME,
        ValueError,
        "must have the shape of input, (2, 3, 4, 5), got (2, 3, 4, 5, 1)",
    ),
    ("target", IMAGE.to("meta"), ValueError, "must be on the device of input, cpu, got meta"),
    ("eps", None, TypeError, "must be a float or a tensor, got NoneType"),
    *((name, *case) for name in ("eps", "target_eps") for case in (*EPS_CASES, *MAP_CASES)),
    *(("mask", *case) for case in (*MASK_CASES, *MAP_CASES)),
    *(("spacing", *case) for case in SPACING_CASES),
    *(("weight", *case) for case in WEIGHT_CASES),
    *(
        (name, value, ValueError, f"must be one of {valid}, got {value!r}")
        for name, valid in CHOICES.items()
        for value in ("", "Mean", "hypot", None, 1)
    ),
    *(
        (name, value, ValueError, f"must be one of {valid}, got {type(value).__name__}")
        for name, valid in CHOICES.items()
        for value in (np.array([["mean"], ["sum"]]), torch.ones(2, 2))
    ),
]


def summary(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{tuple(value.shape)}"
    return (
        type(value).__name__
        if isinstance(value, np.ndarray | list) and len(str(value)) > 20
        else repr(value)
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("name", "value", "error", "sentence"),
    CASES,
    ids=[f"{case[0]}-{summary(case[1])}" for case in CASES],
)
def test_refused(
    function: Callable[..., Any], name: str, value: Any, error: type[Exception], sentence: str
) -> None:
    arguments = {"input": IMAGE, "target": IMAGE.flip(-1), name: value}
    with pytest.raises(error, match=f"^{re.escape(name)} {re.escape(sentence)}$"):
        function(arguments.pop("input"), arguments.pop("target"), **arguments)


@pytest.mark.parametrize("image", [IMAGE, torch.nn.Parameter(IMAGE)], ids=["tensor", "parameter"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("function", FUNCTIONS[:2])
@pytest.mark.parametrize("value", [-1.0, math.nan])
@pytest.mark.parametrize("name", ["eps", "target_eps", "mask"])
def test_bad_values_are_always_found(
    name: str, value: float, function: Callable[..., Any], reduction: str, image: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match=f"^{name} must .*got a value of {value}$"):
        function(image, IMAGE.flip(-1), reduction=reduction, **{name: with_value(value)})


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", ["eps", "target_eps"])
def test_infinite_eps_in_a_tensor(function: Callable[..., Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be positive"):
        function(IMAGE, IMAGE, **{name: with_value(math.inf)})


def test_volume_with_two_spacings() -> None:
    with pytest.raises(
        ValueError,
        match=r"^spacing must be a number or one for each of 3 spatial axes, got \(1, 2\)$",
    ):
        nec_ext.ngf_loss(VOLUME, VOLUME, spacing=(1, 2))


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        nec_ext.ngf_loss(IMAGE, IMAGE, 0.15)
    with pytest.raises(TypeError, match="epsilon"):
        nec_ext.ngf_loss(IMAGE, IMAGE, epsilon=0.15)


@pytest.mark.parametrize("function", [nec_ext.ngf_field, nec_ext.estimate_eps])
@pytest.mark.parametrize(
    ("value", "error", "sentence"), IMAGE_CASES, ids=[summary(case[0]) for case in IMAGE_CASES]
)
def test_image_is_refused(
    function: Callable[..., Any], value: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=f"^image {re.escape(sentence)}$"):
        function(value)


FIELD_CASES = [
    *(("eps", *case) for case in (*EPS_CASES, *MAP_CASES)),
    *(("spacing", *case) for case in SPACING_CASES),
    *(
        (n, "x", ValueError, f"must be one of {CHOICES[n]}, got 'x'")
        for n in ("eps_mode", "operator")
    ),
]


@pytest.mark.parametrize(
    ("name", "value", "error", "sentence"),
    FIELD_CASES,
    ids=[f"{case[0]}-{summary(case[1])}" for case in FIELD_CASES],
)
def test_field_option_is_refused(
    name: str, value: Any, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(name)} {re.escape(sentence)}$"):
        nec_ext.ngf_field(IMAGE, **{name: value})


ETA_CASES: list[tuple[Any, type[Exception], str]] = [
    *((n, ValueError, f"must be positive and finite, got {n}") for n in (0, -1.0, math.nan)),
    (TOO_LARGE, ValueError, f"must be positive and finite, got {TOO_LARGE}"),
    *(
        (value, TypeError, f"must be a float, got {type(value).__name__}")
        for value in ("x", None, [1.0], True, np.ones(1), torch.ones(2))
    ),
]


@pytest.mark.parametrize(("value", "error", "sentence"), ETA_CASES)
def test_eta_is_refused(value: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^eta {re.escape(sentence)}$"):
        nec_ext.estimate_eps(IMAGE, value)


def test_estimate_option_is_refused() -> None:
    with pytest.raises(
        ValueError, match=f"^operator must be one of {CHOICES['operator']}, got 'x'$"
    ):
        nec_ext.estimate_eps(IMAGE, operator="x")


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"eps": 0}, ValueError, "eps must be positive and finite, got 0"),
        ({"target_eps": "x"}, TypeError, "target_eps must be a float or a tensor, got str"),
        (
            {"reduction": "median"},
            ValueError,
            f"reduction must be one of {CHOICES['reduction']}, got 'median'",
        ),
        ({"operator": "x"}, ValueError, f"operator must be one of {CHOICES['operator']}, got 'x'"),
        ({"eps_mode": "x"}, ValueError, f"eps_mode must be one of {CHOICES['eps_mode']}, got 'x'"),
        ({"spacing": (1, -1)}, ValueError, "spacing must be positive and finite, got (1, -1)"),
        ({"weight": math.nan}, ValueError, "weight must be finite, got nan"),
        ({"eps": None}, TypeError, "eps must be a float or a tensor, got NoneType"),
        (
            {"spacing": torch.tensor(1.0)},
            TypeError,
            f"spacing {SPACING} per spatial axis, got tensor(1.)",
        ),
        (
            {"eps": torch.nn.Parameter(torch.ones(1))},
            ValueError,
            "eps must not require a gradient, none is computed for it: detach it",
        ),
    ],
)
def test_module_refuses_when_it_is_made(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        nec_ext.NGFLoss(**options)


@pytest.mark.parametrize("made_with", [0.15, torch.ones(3, 1, 1)], ids=["number", "tensor"])
def test_an_attribute_of_the_module_is_set(made_with: Any) -> None:
    """To a number or a tensor, whatever it was; a wrong one is refused and changes nothing."""
    loss = nec_ext.NGFLoss(eps=made_with, target_eps=made_with)
    for value in (0.3, torch.full((2, 1, 1, 1), 0.3), 0.4):
        loss.eps = value
        expected = nec_ext.ngf_loss(IMAGE, IMAGE.flip(-1), eps=value, target_eps=made_with)
        assert torch.equal(loss(IMAGE, IMAGE.flip(-1)), expected)
        assert ("eps" in dict(loss.named_buffers())) == isinstance(value, torch.Tensor)
        for wrong in ("x", None, -1.0, torch.ones(1, requires_grad=True), IMAGE.to_sparse()):
            with pytest.raises((TypeError, ValueError), match=r"^eps must "):
                loss.eps = wrong
        assert loss.eps is value
    loss.target_eps = None
    assert loss.target_eps is None


def test_numbers_of_numpy_are_numbers() -> None:
    """Spacing read from a header, eps from a configuration."""
    options = {"eps": 0.25, "target_eps": 0.5, "weight": 2.0, "spacing": 1.5}
    expected = nec_ext.ngf_loss(IMAGE, IMAGE.flip(-1), **options)
    for number in (np.float64, np.float32):
        given = {name: number(value) for name, value in options.items()}
        assert torch.equal(nec_ext.ngf_loss(IMAGE, IMAGE.flip(-1), **given), expected)
    for spacing in (np.array([1.5, 1.5]), torch.tensor([1.5, 1.5])):
        assert torch.equal(
            nec_ext.ngf_loss(IMAGE, IMAGE.flip(-1), **{**options, "spacing": spacing}), expected
        )
