# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What the tests of the GPU share. A test file that imports this is skipped where there is none."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import copied
from torch import Tensor

import nec_ext

if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
if nec_ext.build_info()["cuda"] is None:
    pytest.skip("nec_ext was built without CUDA kernels", allow_module_level=True)

DEVICE = torch.device("cuda", torch.cuda.current_device())


@pytest.fixture
def gpu_by_default() -> Iterator[None]:
    """Put tensors that a test makes without naming a device on the GPU."""
    torch.set_default_device("cuda")
    yield
    torch.set_default_device(None)


def on_gpu(value: Any) -> Any:
    """Copy a tensor with its strides and gaps to the GPU; return anything else itself."""
    return copied(value, DEVICE) if isinstance(value, Tensor) else value


def all_on_gpu(options: dict[str, Any]) -> dict[str, Any]:
    return {name: on_gpu(value) for name, value in options.items()}
