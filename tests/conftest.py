# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Keeps tests from seeing each other."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def unchanged_settings() -> Iterator[None]:
    """Fails a test that leaves a global setting of torch behind, and puts the setting right."""
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    after = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_num_threads(before[0])
    torch.set_default_dtype(before[1])
    torch.set_grad_enabled(before[2])
    assert after == before


@pytest.fixture(autouse=True)
def seeded() -> None:
    """For the few tests that draw from torch's own generator."""
    torch.manual_seed(0)
