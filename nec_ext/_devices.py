# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Tells which devices have kernels, and warns of those that have none."""

from __future__ import annotations

import sys
import warnings

import torch

from . import _ops

_warned: set[str] = set()  # types of device
_LEFT_OUT = (
    "nec_ext was installed without its extension (NEC_EXT_BUILD=0): "
    "install a wheel, or build it with a C++ compiler"
)


def reason_without_kernels(kind: str, *, is_rocm: bool, fused: frozenset[str]) -> str | None:
    """Say why a type of device has no kernels; None if it has them."""
    if kind in fused:
        return None
    if kind != "cuda":
        return f"nec_ext has no kernels for {kind}"
    if is_rocm:
        return "nec_ext has no kernels for ROCm"
    return (
        "this build of nec_ext has no CUDA kernels: build it with FORCE_CUDA=1, "
        "which needs a CUDA toolkit, beside a torch with CUDA"
    )


def reason_here(kind: str) -> str | None:
    """Say why this build has no kernels for a type of device; None if it has them."""
    if _ops.extension is None:
        return _LEFT_OUT
    is_rocm = torch.version.hip is not None
    return reason_without_kernels(kind, is_rocm=is_rocm, fused=_ops.FUSED_DEVICES)


def warn_of_reference(kind: str) -> None:
    """Warn, once per type of device, that the reference computes the loss for want of kernels."""
    reason = reason_here(kind)
    if reason is None or kind in _warned or torch.compiler.is_compiling():
        return
    _warned.add(kind)
    # The warning names the line of the caller: the first frame outside nec_ext and torch.
    level, frame = 1, sys._getframe()
    while frame.f_back and _package(frame.f_globals) in ("nec_ext", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"ngf_loss takes its reference, which is slow and takes memory, on {kind}, as {reason}",
        RuntimeWarning,
        stacklevel=level,
    )


def _package(namespace: dict[str, object]) -> str:
    return str(namespace.get("__name__")).partition(".")[0]
