# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Fixtures of the tests of the GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def gpu_by_default() -> Iterator[None]:
    """Tensors that a test makes without naming a device are on the GPU."""
    torch.set_default_device("cuda")
    yield
    torch.set_default_device(None)
