# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""torch.func and batched gradients."""

from functools import partial
from typing import Any

import pytest
import torch
from covering import covering
from helpers import (
    ALL_FORMULAS,
    REDUCTIONS,
    assert_gradient_close,
    assert_loss_close,
    random_upstream,
)
from inputs import SMALL, Case, generator
from torch.autograd import forward_ad
from torch.func import grad, grad_and_value, jacrev, jvp, vmap

import nec_ext
from nec_ext import reference

DTYPES = (torch.float32, torch.float64)
TINY = (1, 1, 2, 3, 3)


def losses(**options: Any) -> tuple[Any, Any]:
    """Return the fused loss and the reference in float64, with the same options."""
    return (
        lambda *images: nec_ext.ngf_loss(*images, **options),
        lambda *images: reference.ngf_loss(*(image.double() for image in images), **options),
    )


@covering(wanted=[(0,), (1,), (0, 1)], dtype=DTYPES, case=SMALL)
def test_grad(wanted: tuple[int, ...], dtype: torch.dtype, case: Case) -> None:
    fused, plain = losses(weight=1.7, mask=torch.rand(case.shape, generator=generator("mask")))
    images = case.images(dtype)
    actual, value = grad_and_value(fused, argnums=wanted)(*images)
    expected, wide = grad_and_value(plain, argnums=wanted)(*(image.double() for image in images))
    assert_loss_close(value, wide)
    for one, other in zip(actual, expected, strict=True):
        assert_gradient_close(one, other)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_vmap_of_grad(reduction: str) -> None:
    fused, plain = losses(reduction=reduction)
    pairs = 2 * torch.rand(2, 3, *SMALL[1].shape, generator=generator("vmap")) - 1
    actual = vmap(grad(lambda *images: fused(*images).sum()))(*pairs)
    for k in range(3):
        wanted = grad(lambda *images: plain(*images).sum())(*pairs[:, k].double())
        assert_gradient_close(actual[k], wanted)


@covering(
    in_dims=[(0, 0), (0, None), (None, 1), (2, 0)],
    options={**ALL_FORMULAS, "reduction": REDUCTIONS},
)
def test_vmap(in_dims: tuple[int | None, int | None], options: dict[str, str]) -> None:
    fused, plain = losses(**options)
    many = [torch.rand(3, 2, 2, 4, 5, generator=generator(name)) for name in ("input", "target")]
    images = [
        image[0] if dim is None else image.movedim(0, dim)
        for image, dim in zip(many, in_dims, strict=True)
    ]
    actual = vmap(fused, in_dims=in_dims)(*images)
    for k in range(3):
        pair = [image[0 if dim is None else k] for image, dim in zip(many, in_dims, strict=True)]
        assert_loss_close(actual[k], plain(*pair))


def test_vmap_over_maps_and_masks() -> None:
    input, target = SMALL[1].images()
    eps = 0.1 + torch.rand(3, 1, 1, 1, 1, generator=generator("eps"))
    mask = torch.rand(3, *SMALL[1].shape, generator=generator("mask"))
    actual = vmap(lambda e, m: nec_ext.ngf_loss(input, target, eps=e, mask=m))(eps, mask)
    for k in range(3):
        assert_loss_close(actual[k], losses(eps=eps[k], mask=mask[k])[1](input, target))


@pytest.mark.parametrize("argument", [0, 1])
def test_jacrev(argument: int) -> None:
    images = torch.rand(2, *TINY, generator=generator("jacrev"), dtype=torch.float64)
    fused, plain = losses(reduction="none", operator="sobel")
    actual, expected = (jacrev(loss, argnums=argument)(*images) for loss in (fused, plain))
    assert_gradient_close(actual, expected)
    fused, plain = losses(eps=0.3)
    actual, expected = (jacrev(grad(loss, argument))(*images) for loss in (fused, plain))
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["loss", "op", "exported module"])
def test_second_derivatives(name: str, compiled: bool) -> None:
    """A graph of torch.func has the bare op where it is compiled, or holds an exported module."""
    images = torch.rand(2, 3, *TINY, generator=generator("graphs"), dtype=torch.float64)
    fused, plain = losses(weight=-1.7)
    if name == "op":
        numbers = (0.15, 0.15, 0, 0, 0, [1.0] * 3, -1.7, 1, True, False, False)
        fused = partial(
            lambda op, *i: op(*i, *[None] * 3, *numbers)[0], torch.ops.nec_ext.ngf_forward
        )
    if name == "exported module":
        fused = torch.export.export(nec_ext.NGFLoss(weight=-1.7), (*images[:, 0],)).module()
    for transform in (
        lambda f: vmap(grad(f, 1)),
        lambda f: grad(lambda *i: vmap(f)(*i).sum(), (0, 1)),
        lambda f: vmap(grad(lambda *i: grad(f)(*i).square().sum(), 1)),
    ):
        function = transform(fused)
        if compiled:
            function = torch.compile(function, backend="aot_eager")
        torch.testing.assert_close(function(*images), transform(plain)(*images))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_gradient_takes_the_reference(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = SMALL[0].images()
    fused, _ = losses(reduction=reduction)
    inner = images[0].clone().requires_grad_()
    loss = fused(inner, images[1])
    monkeypatch.setattr(reference, "loss_from_options", None)  # only derivatives of a gradient do
    expected = grad(lambda *i: fused(*i).sum())(*images)
    for _ in range(2):
        (found,) = torch.autograd.grad(loss.sum(), inner, create_graph=True)
        assert found.requires_grad
        assert_gradient_close(found, expected)
        torch.autograd.grad(loss.sum(), inner, retain_graph=True)


@covering(reduction=REDUCTIONS, retained=[False, True])
def test_batched_gradients(reduction: str, retained: bool) -> None:
    input, target = SMALL[0].images()
    input.requires_grad_()
    loss = nec_ext.ngf_loss(input, target, reduction=reduction)
    if retained:
        torch.autograd.grad(loss, input, random_upstream(loss.shape), retain_graph=True)
    upstreams = torch.randn(3, *loss.shape, generator=generator("batched"))
    (first,) = torch.autograd.grad(loss, input, upstreams, is_grads_batched=True, create_graph=True)
    assert first.requires_grad
    (actual,) = torch.autograd.grad(loss, input, upstreams, is_grads_batched=True)
    torch.testing.assert_close(first, actual)
    wide = input.detach().double().requires_grad_()
    value = reference.ngf_loss(wide, target.double(), reduction=reduction)
    for k in range(3):
        expected = torch.autograd.grad(value, wide, upstreams[k].double(), retain_graph=True)[0]
        assert_gradient_close(actual[k], expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode(requires_grad: bool) -> None:
    """Never a tangent of 0, which is what an op without a rule gets from torch."""
    input, target = SMALL[0].images(torch.float64)
    tangent = torch.rand(input.shape, generator=generator("tangent"), dtype=torch.float64)
    fused, plain = (lambda i, f=f: f(i, target) for f in losses())
    primal = input.clone().requires_grad_(requires_grad)
    found = [jvp(fused, (primal,), (tangent,))[1]]
    with forward_ad.dual_level():
        found.append(forward_ad.unpack_dual(fused(forward_ad.make_dual(primal, tangent))).tangent)
    for actual in found:
        torch.testing.assert_close(actual.detach(), jvp(plain, (input,), (tangent,))[1])
