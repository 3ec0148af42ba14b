# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Fused normalized gradient field (NGF) loss for PyTorch, in 2D and 3D."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import _console as _console  # before torch, of whose warnings it may filter one
from . import reference, tiled
from ._build_info import __version__, build_info
from .functional import ngf_loss, ngf_loss_and_gradient
from .loss import NGFLoss
from .reference import estimate_eps, interior_mask, ngf_field

if TYPE_CHECKING:
    from . import distributed

__all__ = [
    "NGFLoss",
    "__version__",
    "build_info",
    "distributed",
    "estimate_eps",
    "interior_mask",
    "ngf_field",
    "ngf_loss",
    "ngf_loss_and_gradient",
    "reference",
    "tiled",
]


def __getattr__(name: str) -> ModuleType:
    # On demand: torch.distributed.tensor takes a second to import.
    if name == "distributed":
        return import_module(".distributed", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
