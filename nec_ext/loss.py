# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from torch import Tensor
from torch.nn import Parameter
from torch.nn.modules.loss import _Loss

from ._arguments import (
    DEFAULT_EPS,
    check_eps_map,
    check_form,
    check_option,
    parse_eps_value,
    parse_steps,
    parse_weight,
)
from .functional import ngf_loss, refuse_script

__all__ = ["NGFLoss"]


class NGFLoss(_Loss):
    """Normalized gradient field loss: :func:`nec_ext.ngf_loss` with its options set once.

    Args:
        eps, target_eps: see :func:`nec_ext.ngf_loss`. A tensor becomes a buffer of the module, a
            ``Parameter`` a parameter. So it moves with the module, and checkpoints contain it.
        eps_mode, operator, spacing, weight, form: see :func:`nec_ext.ngf_loss`.
        reduction: as in :func:`nec_ext.ngf_loss`, or the member of MONAI's ``LossReduction``.

    Raises:
        TypeError, ValueError: an option is not valid.

    Example:
        >>> loss = nec_ext.NGFLoss(eps=0.15, spacing=(1.0, 0.9, 0.9))
        >>> loss(torch.rand(1, 1, 32, 32, 32), torch.rand(1, 1, 32, 32, 32))
    """

    def __init__(
        self,
        *,
        eps: float | Tensor = DEFAULT_EPS,
        target_eps: float | Tensor | None = None,
        eps_mode: str = "additive",
        operator: str = "central",
        spacing: float | Sequence[float] | None = None,
        weight: float = 1.0,
        reduction: str = "mean",
        form: str = "squared",
    ) -> None:
        reduction = getattr(reduction, "value", reduction)
        check_form(form, eps_mode)
        check_option("operator", operator)
        check_option("reduction", reduction)
        super().__init__(reduction=reduction)
        self.eps, self.target_eps = eps, target_eps
        self.eps_mode, self.form = eps_mode, form
        self.operator = operator
        self.spacing = parse_steps(spacing, 2, 3)
        self.weight = parse_weight(weight)

    def __setattr__(self, name: str, value: Any) -> None:
        """Check eps and target_eps; a parameter is registered, another tensor becomes a buffer."""
        if name not in ("eps", "target_eps"):
            super().__setattr__(name, value)
            return
        if isinstance(value, Tensor):
            check_eps_map(name, value)
        elif value is not None or name == "eps":
            value = parse_eps_value(name, value)
        for place in (self.__dict__, self._buffers, self._parameters):
            place.pop(name, None)
        if isinstance(value, Tensor) and not isinstance(value, Parameter):
            self.register_buffer(name, value)
        else:
            super().__setattr__(name, value)

    def forward(
        self,
        input: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        *,
        reduction: str | None = None,
    ) -> Tensor:
        """Compute :func:`nec_ext.ngf_loss` with the options of the module.

        Args:
            input: ``(B, C, H, W)`` or ``(B, C, D, H, W)``, the generated image. A volume needs its
                batch axis: ``(C, D, H, W)`` is taken for 2D images with D channels.
            target: the source image, of the same shape.
            mask: weights of the voxels, broadcastable to the images.
            reduction: of this call, in place of the module's, as hosts ask for it that reduce the
                losses themselves.
        """
        return ngf_loss(
            input,
            target,
            eps=self.eps,
            target_eps=self.target_eps,
            eps_mode=self.eps_mode,
            operator=self.operator,
            spacing=self.spacing,
            mask=mask,
            weight=self.weight,
            reduction=self.reduction if reduction is None else reduction,
            form=self.form,
        )

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_script()

    def extra_repr(self) -> str:
        """Return the options that a printed module shows."""
        names = ["eps", "eps_mode", "operator", "reduction"]
        if self.form != "squared":
            names.append("form")
        if self.target_eps is not None:
            names.append("target_eps")
        if self.spacing is not None:
            names.append("spacing")
        if self.weight != 1:
            names.append("weight")
        values = {name: getattr(self, name) for name in names}
        return ", ".join(
            f"{name}=<tensor of shape {tuple(value.shape)}>"
            if isinstance(value, Tensor)
            else f"{name}={value!r}"
            for name, value in values.items()
        )
