# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""A counter of the bytes that are handed to torch.distributed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch.distributed as dist

# A loss might use any of these functions.
NAMES = (
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "gather",
    "irecv",
    "isend",
    "recv",
    "reduce",
    "reduce_scatter_tensor",
    "send",
)
Calls = dict[str, list[int]]


@contextlib.contextmanager
def counted() -> Iterator[Calls]:
    """Count the bytes of every call by the name of its function; of a batch, those it sends."""
    calls: Calls = {}

    def recording(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            first = arguments[0] if arguments else None
            if name == "batch_isend_irecv":
                sent = [op.tensor.nbytes for op in first if op.op is dist.isend]
                calls.setdefault("messages", []).extend(sent)
                first = None
            tensors = first if isinstance(first, list) else [first]
            calls.setdefault(name, []).append(sum(getattr(t, "nbytes", 0) for t in tensors))
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        # A batch calls isend and irecv by itself, and its bytes must not be counted twice.
        for name in set(NAMES) - {"isend", "irecv"}:
            function = getattr(dist, name)
            stack.enter_context(mock.patch.object(dist, name, recording(name, function)))
        yield calls
