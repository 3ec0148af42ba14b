# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Names the ops of the extension.

csrc/ops/schema.cpp says what their arguments and results mean.
"""

from __future__ import annotations

from typing import Any

import torch

from ._extension import load
from ._torch import call_below_autograd, is_transforming

extension = load()  # registers torch.ops.nec_ext
# Device types with a kernel; "meta" stands for the fake kernels. Others take the reference.
FUSED_DEVICES: frozenset[str] = frozenset()
if extension is not None:
    ngf_forward = torch.ops.nec_ext.ngf_forward.default
    ngf_backward = torch.ops.nec_ext.ngf_backward.default
    ngf_eps_backward = torch.ops.nec_ext.ngf_eps_backward.default
    ngf_sums_ = torch.ops.nec_ext.ngf_sums_.default
    ngf_scale_ = torch.ops.nec_ext.ngf_scale_.default
    FUSED_DEVICES |= {"cpu", "meta"}
    # ROCm calls its devices "cuda" too.
    if "cuda" in extension.build_info() and torch.version.hip is None:
        FUSED_DEVICES |= {"cuda"}


def call(op: Any, *arguments: Any) -> Any:
    """Call an op whose derivative the caller takes care of.

    In plain eager mode the kernel of an op called directly (_direct_calls.py), which is written in
    Python, would cost more than a small image.
    """
    if torch.compiler.is_compiling() or is_transforming():
        return op(*arguments)
    return call_below_autograd(op, *arguments)
