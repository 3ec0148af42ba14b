# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A wrong argument is refused in one sentence: its name, what was expected and what came."""

import math
import re
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from helpers import OPERATORS

import nec_ext
from nec_ext import _devices, _ops

SHAPE = (2, 3, 4, 5)
IMAGE = torch.linspace(-1, 1, 120).view(SHAPE)
OTHER = IMAGE.flip(-1)
VOLUME = IMAGE.view(2, 3, 4, 5, 1)
Sentences = list[tuple[Any, type[Exception], str]]  # of wrong values, after the argument's name


def with_value(value: float) -> torch.Tensor:
    tensor = torch.ones(SHAPE)
    tensor[1, 2, 3, 4] = value
    return tensor


def wide(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def each(error: type[Exception], sentence: str, *values: Any, make: Any = lambda v: v) -> Sentences:
    """Make a row of each value, whose sentence names the value or its type."""
    return [(make(v), error, sentence.format(v, type(v).__name__)) for v in values]


FLOATS = "float32, float64, float16 or bfloat16"
ALL = f"the images of shape {SHAPE}"
SHAPES = "(B, C, H, W) or (B, C, D, H, W)"
SIX_AXES = (1, 2, 3, 4, 5, 1)
TOO_LARGE = 10**309  # for a float
TINY, HUGE = 1e-46, 1e39  # for float32
POSITIVE = "must be positive and finite, got"
IN_FLOAT32 = "in float32, got a value of"
NOT_NEGATIVE = "must not be negative or infinite, got a value of"
NUMBERS = "must be a float or a tensor of numbers"
ONE_EACH, TWO_OR_THREE = "must be a number or one", "for each of 2 or 3 spatial axes"
CHOICES = {
    "eps_mode": "must be one of 'additive', 'quadrature', 'augmented', got",
    "form": "must be one of 'squared', 'signed', 'absolute', 'cross', got",
    "operator": f"must be one of {', '.join(map(repr, OPERATORS))}, got",
    "reduction": "must be one of 'none', 'mean', 'sum', 'sample', got",
}

IMAGES: Sentences = [
    (IMAGE.long(), TypeError, f"must be {FLOATS}, got int64"),
    (IMAGE.to(torch.complex64), TypeError, f"must be {FLOATS}, got complex64"),
    (None, TypeError, "must be a torch.Tensor, got NoneType"),
    (IMAGE.numpy(), TypeError, "must be a torch.Tensor, got ndarray"),
    (IMAGE.to_sparse(), TypeError, "must be a dense tensor, got layout torch.sparse_coo"),
    (IMAGE[0], ValueError, f"must have shape {SHAPES}, got 3 dimensions: (3, 4, 5)"),
    (IMAGE.view(SIX_AXES), ValueError, f"must have shape {SHAPES}, got 6 dimensions: {SIX_AXES}"),
    (torch.empty(2, 3, 0, 5), ValueError, "must not be empty, got shape (2, 3, 0, 5)"),
]
TARGETS: Sentences = [
    (IMAGE.mT, ValueError, f"must have the shape of input, {SHAPE}, got (2, 3, 5, 4)"),
    (VOLUME, ValueError, f"must have the shape of input, {SHAPE}, got (2, 3, 4, 5, 1)"),
    (None, TypeError, "must be a torch.Tensor, got NoneType"),
    (IMAGE.to("meta"), ValueError, "must be on the device of input, cpu, got meta"),
]
MAPS: Sentences = [
    (IMAGE.to(torch.complex64), TypeError, "must be real, got complex64"),
    (IMAGE.to_sparse(), TypeError, "must be a dense tensor, got layout torch.sparse_coo"),
    (IMAGE.to("meta"), ValueError, "must be on the device of the images, cpu, got meta"),
    *each(
        *(ValueError, f"must be broadcastable to {ALL}, got shape {{}}"),
        *((5, 4), (3, 3, 4, 5), (1, 1, 1, 1, 1), (0,)),
        make=torch.ones,
    ),
]
EPS: Sentences = [
    *each(ValueError, f"{POSITIVE} {{}}", 0.0, -0.15, math.nan, math.inf, TOO_LARGE),
    *each(TypeError, "must be a float or a tensor, got {1}", None, "1", True, [0.1], np.ones(3)),
    *each(
        ValueError, f"{POSITIVE} a value of {{}}", 0.0, -2.0, math.nan, math.inf, make=with_value
    ),
    *each(ValueError, f"{POSITIVE} a value of {{}}", 0.0, make=torch.tensor),
    *each(ValueError, f"must be positive and finite {IN_FLOAT32} {{}}", TINY, HUGE, make=wide),
    *each(TypeError, f"{NUMBERS}, got bool", True, make=torch.tensor),
    *MAPS,
]
MASKS: Sentences = [
    (with_value(-2), ValueError, f"{NOT_NEGATIVE} -2.0"),
    (with_value(-2).long(), ValueError, f"{NOT_NEGATIVE} -2.0"),
    *each(ValueError, f"{NOT_NEGATIVE} {{}}", math.nan, math.inf, make=with_value),
    (wide(HUGE), ValueError, f"must not be negative or infinite {IN_FLOAT32} {HUGE}"),
    (wide(TINY), ValueError, f"must not become 0 {IN_FLOAT32} {TINY}"),
    (1.0, TypeError, "must be a torch.Tensor, got float"),
    *MAPS,
]
SPACINGS: Sentences = [
    *each(ValueError, f"{POSITIVE} {{}}", 0, math.nan, math.inf, (1.0, 0.0), TOO_LARGE),
    *each(ValueError, f"{ONE_EACH} for each of 2 spatial axes, got {{}}", (1.0, 2.0, 3.0)),
    *each(TypeError, f"{ONE_EACH} per spatial axis, got {{1}}", np.ones((2, 2))),
    *each(TypeError, f"{ONE_EACH} per spatial axis, got {{!r}}", (1.0, None), "11", True, 1j),
    *each(TypeError, f"{ONE_EACH} per spatial axis, got {{!r}}", ("a", "b"), torch.tensor(1.0)),
]
WEIGHTS: Sentences = [
    *each(ValueError, "must be finite, got {}", math.nan, -math.inf, -TOO_LARGE),
    *each(TypeError, "must be a float, got {1}", "1", torch.tensor(1.0)),
]
REDUCTIONS: Sentences = [
    *each(ValueError, f"{CHOICES['reduction']} {{!r}}", "Mean", None, 1),
    *each(ValueError, f"{CHOICES['reduction']} {{1}}", torch.ones(2, 2)),
]
SENTENCES: dict[str, Sentences] = {
    "input": IMAGES,
    "target": TARGETS,
    "eps": EPS,
    "target_eps": [EPS[0], EPS[10], MAPS[4]],
    "mask": MASKS,
    "spacing": SPACINGS,
    "weight": WEIGHTS,
    **{name: each(ValueError, f"{CHOICES[name]} {{!r}}", "x") for name in CHOICES},
    "reduction": REDUCTIONS,
}
CASES = [("loss", name, *case) for name, cases in SENTENCES.items() for case in cases]
# The other functions share the parser.
SHARED = {
    "reference": SENTENCES,
    "field": ("eps", "spacing", "operator", "eps_mode"),
    "estimate": ("spacing", "operator"),
    "differences": ("spacing", "operator"),
    "module": ("eps", "target_eps", "spacing", "weight", "reduction", "operator", "eps_mode"),
}
CASES += [
    *((face, name, *SENTENCES[name][0]) for face, names in SHARED.items() for name in names),
    *((face, "image", *IMAGES[0]) for face in ("field", "estimate", "differences")),
    *(("estimate", "eta", n, ValueError, f"{POSITIVE} {n}") for n in (0, math.nan, TOO_LARGE)),
    ("estimate", "eta", True, TypeError, "must be a float, got bool"),
    ("module", "target_eps", *EPS[6]),
    ("module", "eps", torch.tensor(True), TypeError, f"{NUMBERS}, got bool"),
    ("module", "spacing", (1,) * 7, ValueError, f"{ONE_EACH} {TWO_OR_THREE}, got {(1,) * 7}"),
    ("gradient", "target_grad", "no", TypeError, "must be a bool, got str"),
]
LOSS = {"input": IMAGE, "target": OTHER}
FACES: dict[str, Any] = {
    "loss": lambda **given: nec_ext.ngf_loss(**{**LOSS, **given}),
    "reference": lambda **given: nec_ext.reference.ngf_loss(**{**LOSS, **given}),
    "field": lambda **given: nec_ext.ngf_field(**{"image": IMAGE, **given}),
    "estimate": lambda **given: nec_ext.estimate_eps(**{"image": IMAGE, **given}),
    "module": nec_ext.NGFLoss,
    "gradient": lambda **given: nec_ext.ngf_loss_and_gradient(**{**LOSS, **given}),
    "differences": lambda **given: nec_ext.reference.image_gradient(**{"image": IMAGE, **given}),
}


@pytest.mark.parametrize(
    ("face", "name", "value", "error", "sentence"),
    CASES,
    ids=["-".join(case[:2]) for case in CASES],
)
def test_refused(face: str, name: str, value: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(name)} {re.escape(sentence)}$"):
        FACES[face](**{name: value})


@pytest.mark.parametrize("functions", ["fused", "reference", "fused without kernels"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("name", ["eps", "target_eps", "mask"])
def test_bad_values_are_always_found(
    name: str, reduction: str, functions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if functions == "fused without kernels":
        monkeypatch.setattr(_ops, "FUSED_DEVICES", frozenset())
        monkeypatch.setattr(_devices, "_warned", {"cpu"})
    ngf_loss = (nec_ext.reference if functions == "reference" else nec_ext).ngf_loss
    for image in (IMAGE, IMAGE.clone().requires_grad_()):
        for value in (-1.0, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"^{name} must .*got a value of {value}$"):
                ngf_loss(image, OTHER, reduction=reduction, **{name: with_value(value)})


def test_the_cross_product_has_no_augmented_fields() -> None:
    for call in (partial(nec_ext.ngf_loss, IMAGE, IMAGE), nec_ext.NGFLoss):
        with pytest.raises(ValueError, match="form 'cross' must have eps_mode 'additive' or"):
            call(form="cross", eps_mode="augmented")


def test_options_are_keywords() -> None:
    with pytest.raises(TypeError, match="positional"):
        nec_ext.ngf_loss(IMAGE, IMAGE, 0.15)
    for function in (nec_ext.ngf_loss_and_gradient, nec_ext.reference.ngf_loss):
        with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) got an unexpected keyword"):
            function(IMAGE, IMAGE, reducton="sum")


@pytest.mark.parametrize("name", ["ngf_loss_and_gradient", "reference", "tiled", "distributed"])
def test_options_and_defaults_are_the_same_everywhere(name: str) -> None:
    face = getattr(nec_ext, name)
    own = signature(getattr(face, "ngf_loss", face)).parameters
    for option, parameter in signature(nec_ext.ngf_loss).parameters.items():
        assert own[option].default == parameter.default


@pytest.mark.parametrize("made_with", [0.15, torch.ones(3, 1, 1)], ids=["number", "tensor"])
def test_an_attribute_of_the_module_is_set(made_with: Any) -> None:
    """It becomes a number or a tensor, whatever it was; a wrong value changes nothing."""
    loss = nec_ext.NGFLoss(eps=made_with, target_eps=made_with)
    for value in (0.3, torch.full((2, 1, 1, 1), 0.3), 0.4):
        loss.eps = value
        assert ("eps" in dict(loss.named_buffers())) == isinstance(value, torch.Tensor)
        for wrong in ("x", -1.0, torch.ones(1, dtype=torch.complex64)):
            with pytest.raises((TypeError, ValueError), match=r"^eps must "):
                loss.eps = wrong
        expected = nec_ext.ngf_loss(IMAGE, OTHER, eps=value, target_eps=made_with)
        assert torch.equal(loss(IMAGE, OTHER), expected)


def test_numbers_of_numpy_are_numbers() -> None:
    """A header has the spacing, a configuration has eps."""
    options = {"eps": 0.25, "target_eps": 0.5, "weight": 2.0, "spacing": 1.5}
    expected = nec_ext.ngf_loss(IMAGE, OTHER, **options)
    for number in (np.float64, np.float32, np.array):
        given = {name: number(value) for name, value in options.items()}
        assert torch.equal(nec_ext.ngf_loss(IMAGE, OTHER, **given), expected)
    for spacing in (np.array([1.5, 1.5]), torch.tensor([1.5, 1.5]), iter([1.5, 1.5])):
        loss = nec_ext.NGFLoss(**{**options, "spacing": spacing})
        for _ in range(2):  # an iterator is read once
            assert torch.equal(loss(IMAGE, OTHER), expected)
