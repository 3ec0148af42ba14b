# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Checks every argument once, in one sentence that names it, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The position of a name is its number in the op schema (csrc/math/common.h, csrc/ops/arguments.h),
# which has no "sample": each sample's mean is a call of its own.
CHOICES = {
    "eps_mode": ("additive", "quadrature", "augmented"),
    "form": ("squared", "signed", "absolute", "cross"),
    "operator": ("central", "forward", "sobel"),
    "reduction": ("none", "mean", "sum", "sample"),
    "statistic": ("mean", "median", "rms"),
}
HALF_DTYPES = (torch.float16, torch.bfloat16)
IMAGE_DTYPES = (torch.float32, torch.float64, *HALF_DTYPES)
MAP_DTYPES = (*IMAGE_DTYPES, torch.bool, torch.uint8)
DEFAULT_EPS = 0.15
LINEAR_FORMS = ("signed", "absolute")  # in the alignment


# eps, target_eps and mask, where they are tensors.
Maps = tuple[Tensor | None, Tensor | None, Tensor | None]
Gradients = tuple[Tensor | None, Tensor | None]  # of input, of target
Wanted = tuple[bool, bool]  # which of them


class Options(NamedTuple):
    """Checked options of the loss: what :func:`nec_ext.ngf_loss` takes besides the images."""

    eps: float | Tensor = DEFAULT_EPS
    target_eps: float | Tensor = DEFAULT_EPS
    eps_mode: str = "additive"
    operator: str = "central"
    spacing: tuple[float, ...] = ()
    mask: Tensor | None = None
    weight: float = 1.0
    reduction: str = "mean"
    form: str = "squared"

    def tensors(self) -> Maps:
        """Return eps, target_eps and mask where they are tensors, in the order of the schema."""
        return (
            self.eps if isinstance(self.eps, Tensor) else None,
            self.target_eps if isinstance(self.target_eps, Tensor) else None,
            self.mask,
        )

    def without_tensors(self) -> Options:
        """Return the options that an autograd graph may keep beside its saved tensors."""
        if not self.has_maps:
            return self
        eps, target_eps = (
            0.0 if isinstance(value, Tensor) else value for value in (self.eps, self.target_eps)
        )
        return self._replace(eps=eps, target_eps=target_eps, mask=None)

    def with_tensors(self, maps: Maps) -> Options:
        """Put the tensors back that :meth:`without_tensors` has left out."""
        eps, target_eps, mask = maps
        return self._replace(
            eps=self.eps if eps is None else eps,
            target_eps=self.target_eps if target_eps is None else target_eps,
            mask=mask,
        )

    def numbers(self) -> tuple[Any, ...]:
        """Return what the ops take besides tensors, in the order of the schema."""
        return (
            0.0 if isinstance(self.eps, Tensor) else self.eps,
            0.0 if isinstance(self.target_eps, Tensor) else self.target_eps,
            CHOICES["eps_mode"].index(self.eps_mode),
            CHOICES["operator"].index(self.operator),
            CHOICES["form"].index(self.form),
            self.spacing,
            self.weight,
        )

    def by_sample(self, count: int) -> list[Options]:
        """Return the options of each sample's mean: tensors along the batch axis are split."""
        of_maps = [
            [m] * count
            if m is None or m.dim() < self.ndim + 2 or m.shape[0] == 1
            else m.chunk(count)
            for m in self.tensors()
        ]
        mean = self.without_tensors()._replace(reduction="mean")
        return [mean.with_tensors(maps) for maps in zip(*of_maps, strict=True)]

    @property
    def base_and_scale(self) -> tuple[float, float]:
        """Return base and scale of a loss ``base - scale * value`` (math/form.h)."""
        return 0.0 if self.form == "cross" else 1.0, 1.0 if self.form in LINEAR_FORMS else 0.5

    @property
    def ndim(self) -> int:
        """Return the number of spatial axes."""
        return len(self.spacing)

    @property
    def has_maps(self) -> bool:
        """Return whether an option is a tensor, whose values only :func:`check_maps` sees."""
        return (
            isinstance(self.eps, Tensor)
            or isinstance(self.target_eps, Tensor)
            or self.mask is not None
        )


def shown(value: object) -> str:
    """Format a value for a sentence; a tensor or an array of many lines is only named."""
    text = repr(value)
    return type(value).__name__ if "\n" in text else text


def check_option(name: str, value: object) -> None:
    """Raise ValueError unless ``value`` is one of the valid choices, which the error lists."""
    if not isinstance(value, str) or value not in CHOICES[name]:
        valid = ", ".join(repr(choice) for choice in CHOICES[name])
        raise ValueError(f"{name} must be one of {valid}, got {shown(value)}")


def check_form(form: object, eps_mode: object) -> None:
    """Raise ValueError unless form and eps_mode are valid choices that go together."""
    check_option("form", form)
    check_option("eps_mode", eps_mode)
    if form == "cross" and eps_mode == "augmented":
        raise ValueError(
            "form 'cross' must have eps_mode 'additive' or 'quadrature', got 'augmented', "
            "whose fields have no cross product"
        )


def plain(tensor: Tensor) -> Tensor:
    """Unwrap MONAI's MetaTensor: metadata has no place in a loss."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def check_images(**images: Tensor) -> dict[str, Tensor]:
    """Unwrap the images; raise unless they fit the loss and each other."""
    checked: dict[str, Tensor] = {}
    first_name = ""
    for name, image in images.items():
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(image).__name__}")
        if image.dtype not in IMAGE_DTYPES:
            raise TypeError(
                f"{name} must be float32, float64, float16 or bfloat16, got {str(image.dtype)[6:]}"
            )
        if image.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {image.layout}")
        if image.dim() not in (4, 5):
            raise ValueError(
                f"{name} must have shape (B, C, H, W) or (B, C, D, H, W), got {image.dim()} "
                f"dimensions: {tuple(image.shape)}"
            )
        if image.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {tuple(image.shape)}")
        if not checked:
            first_name = name
        elif image.shape != images[first_name].shape:
            raise ValueError(
                f"{name} must have the shape of {first_name}, {tuple(images[first_name].shape)}, "
                f"got {tuple(image.shape)}"
            )
        elif image.device != images[first_name].device:
            raise ValueError(
                f"{name} must be on the device of {first_name}, {images[first_name].device}, "
                f"got {image.device}"
            )
        checked[name] = plain(image)
    return checked


def check_real(name: str, tensor: Tensor) -> None:
    """Check a map of eps or mask, apart from its fit to the images."""
    if tensor.is_complex():
        raise TypeError(f"{name} must be real, got {str(tensor.dtype)[6:]}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {tensor.layout}")


def check_no_gradient(o: Options, what: str) -> None:
    """Raise ValueError if a tensor of eps or mask requires a gradient, which ``what`` lacks."""
    for name, tensor in zip(("eps", "target_eps", "mask"), o.tensors(), strict=True):
        if tensor is not None and tensor.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} must not require a gradient, {what} has none: detach it")


def _check_map(name: str, tensor: Tensor, image: Tensor) -> Tensor:
    """Check that a map of eps or mask fits the images; convert it to a dtype of the kernels."""
    check_real(name, tensor)
    if tensor.device != image.device:
        raise ValueError(
            f"{name} must be on the device of the images, {image.device}, got {tensor.device}"
        )
    shape = tuple(tensor.shape)
    aligned = zip(reversed(shape), reversed(image.shape), strict=False)
    if len(shape) > image.dim() or any(own not in (1, size) for own, size in aligned):
        raise ValueError(
            f"{name} must be broadcastable to the images of shape {tuple(image.shape)}, "
            f"got shape {shape}"
        )
    tensor = plain(tensor)
    if tensor.dtype in MAP_DTYPES:
        return tensor
    return tensor.to(torch.float32)


def parse_eps(name: str, eps: float | Tensor, image: Tensor) -> float | Tensor:
    """Return a positive float, or a tensor whose values :func:`check_maps` looks at."""
    if isinstance(eps, Tensor):
        check_eps_map(name, eps)
        return _check_map(name, eps, image)
    return parse_eps_value(name, eps)


def check_eps_map(name: str, eps: Tensor) -> None:
    """Check a tensor of eps, apart from its fit to the images."""
    check_real(name, eps)
    if eps.dtype == torch.bool:
        raise TypeError(f"{name} must be a float or a tensor of numbers, got bool")


def parse_mask(mask: Tensor, image: Tensor) -> Tensor:
    """Return a mask that fits the image, whose values :func:`check_maps` looks at."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a torch.Tensor, got {type(mask).__name__}")
    return _check_map("mask", mask, image)


def _as_float(value: Any) -> float:
    """Convert a number to float; an int that is too large becomes infinite."""
    if isinstance(value, (bool, str)):  # Python would convert these too
        raise TypeError
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _number_of(value: Any) -> Any:
    """Return the number in an array without axes, and any other value itself."""
    if isinstance(value, (Real, Tensor)) or getattr(value, "shape", None) != ():
        return value
    return value.item()


def parse_number(name: str, value: float, expected: str = "a float") -> float:
    """Convert a real number to float, which may be infinite."""
    value = _number_of(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {expected}, got {type(value).__name__}")
    return _as_float(value)


def parse_positive(name: str, value: float, expected: str = "a float") -> float:
    """Convert a real number to a positive and finite float."""
    number = parse_number(name, value, expected)
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value}")
    return number


def parse_eps_value(name: str, eps: float) -> float:
    """Convert an eps that is not a tensor to a positive float."""
    return parse_positive(name, eps, "a float or a tensor")


def parse_steps(
    spacing: float | Sequence[float] | None, *counts: int
) -> float | tuple[float, ...] | None:
    """Return a positive number, or as many of them as one of the counts."""
    if spacing is None:
        return None
    spacing = _number_of(spacing)
    is_number = isinstance(spacing, (Real, str))
    try:
        each: Any = (spacing,) if is_number else spacing
        steps = tuple(map(_as_float, each))
    except (TypeError, ValueError):
        raise TypeError(
            f"spacing must be a number or one per spatial axis, got {shown(spacing)}"
        ) from None
    if not is_number and len(steps) not in counts:
        valid = " or ".join(map(str, counts))
        raise ValueError(
            f"spacing must be a number or one for each of {valid} spatial axes, "
            f"got {shown(spacing)}"
        )
    if not all(0 < step < math.inf for step in steps):
        raise ValueError(f"spacing must be positive and finite, got {shown(spacing)}")
    return steps[0] if is_number else steps


def parse_spacing(spacing: float | Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    """Return one positive number per spatial axis."""
    steps = parse_steps(spacing, ndim)
    if steps is None:
        return (1.0,) * ndim
    return steps if isinstance(steps, tuple) else (steps,) * ndim


def parse_weight(weight: float) -> float:
    """Convert a weight to a finite float."""
    number = parse_number("weight", weight)
    if not -math.inf < number < math.inf:
        raise ValueError(f"weight must be finite, got {weight}")
    return number


def parse_options(
    input: Tensor,
    target: Tensor,
    eps: float | Tensor,
    target_eps: float | Tensor | None,
    eps_mode: str,
    operator: str,
    spacing: float | Sequence[float] | None,
    mask: Tensor | None,
    weight: float,
    reduction: str,
    form: str,
) -> tuple[Tensor, Tensor, Options]:
    """Check all arguments of :func:`nec_ext.ngf_loss` and unwrap the images."""
    input, target = check_images(input=input, target=target).values()
    check_form(form, eps_mode)
    check_option("operator", operator)
    check_option("reduction", reduction)
    eps = parse_eps("eps", eps, input)
    target_eps = eps if target_eps is None else parse_eps("target_eps", target_eps, input)
    steps = parse_spacing(spacing, input.dim() - 2)
    if mask is not None:
        mask = parse_mask(mask, input)
    weight = parse_weight(weight)
    options = Options(eps, target_eps, eps_mode, operator, steps, mask, weight, reduction, form)
    return input, target, options
