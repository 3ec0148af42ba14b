# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Fused normalized gradient field (NGF) loss for PyTorch, in 2D and 3D."""

from . import reference
from ._build_info import __version__, build_info
from .functional import ngf_loss
from .loss import NGFLoss
from .reference import estimate_eps, ngf_field

__all__ = [
    "NGFLoss",
    "__version__",
    "build_info",
    "estimate_eps",
    "ngf_field",
    "ngf_loss",
    "reference",
]
