# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The private names of torch that the package uses: an update of torch may move them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

Keys = torch._C.DispatchKeySet

# A transform of torch.func (grad, vmap, ...) is at work.
is_transforming = torch._C._are_functorch_transforms_active


def is_recording() -> bool:
    """Return whether torch.export or torch.jit.trace records a graph that outlives the call."""
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None


def takes_bare_op() -> bool:
    """Return whether the loss must be one op, whose gradient is in _direct_calls.py.

    A graph that outlives the call holds it, and torch.compile can transform no autograd.Function.
    """
    return is_recording() or (torch.compiler.is_compiling() and is_transforming())


def is_eager() -> bool:
    """Return whether operations run as they are called, on the tensors that are passed."""
    return not (torch.compiler.is_compiling() or is_transforming() or is_recording())


def is_forward_mode() -> bool:
    """Return whether forward-mode derivatives are being computed."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def has_tangent(tensor: Tensor) -> bool:
    """Return whether a forward-mode derivative by the tensor is asked for."""
    unpack: Any = forward_ad.unpack_dual
    return is_forward_mode() and unpack(tensor).tangent is not None


def is_batched(tensor: Tensor) -> bool:
    """Return whether vmap, or a backward with ``is_grads_batched``, holds tensors in this one."""
    functorch = torch._C._functorch
    return functorch.is_batchedtensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


def call_below_autograd(op: Any, *arguments: Any) -> Any:
    """Call an op past the kernels of its derivative."""
    with torch._C._AutoDispatchBelowAutograd():
        return op(*arguments)


def redispatch_below_autograd(op: Any, keys: Keys, *arguments: Any) -> Any:
    """Go on from the kernel of an op's derivative to the kernels below."""
    # Below may be the derivative of an outer transform, which forward must not switch off.
    enabled = torch.is_grad_enabled() or is_transforming()
    with torch._C._AutoDispatchBelowAutograd(), torch.set_grad_enabled(enabled):
        return op.redispatch(keys & torch._C._after_autograd_keyset, *arguments)


def apply_in_kernel(function: Any, *arguments: Any) -> Any:
    """Apply an autograd.Function in the kernel of an op's derivative.

    torch.func runs such a kernel once for every transform of a gradient, so that the function need
    not know of transforms.
    """
    with enable_single_level_autograd_function():
        return eager_apply(function)(*arguments)


def eager_apply(function: Any) -> Any:
    """Return what ``function.apply`` ends in, which is all that eager mode needs of it.

    ``function.apply`` first looks for defaults to fill in and for torch.func, which takes as long
    as a quarter of a small image.
    """
    return super(torch.autograd.Function, function).apply
