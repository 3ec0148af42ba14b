# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The tests of the CPU once more, with everything that they make on the GPU."""

from __future__ import annotations

import importlib

import gpu  # noqa: F401
import pytest

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu_by_default")]

# The file, and which of its tests ask for what only the CPU has.
REUSED: dict[str, set[str]] = {
    "kernels.test_functional": set(),
    # Sums over halves and over float32 need not be cut into the same blocks.
    "kernels.test_dtypes": {"test_half_gradient_is_the_float32_gradient_rounded"},
    "package.test_autograd": set(),
    "package.test_transforms": set(),
    "kernels.test_extremes": set(),
    "kernels.test_memory": set(),
    "kernels.test_huge": set(),
}

for _file, _left_out in REUSED.items():
    _tests = {
        name: test
        for name, test in vars(importlib.import_module(_file)).items()
        if name.startswith("test_")
    }
    assert _tests.keys() >= _left_out
    for _name in _tests.keys() - _left_out:
        globals()[f"{_file.rpartition('.')[2]}_{_name.removeprefix('test_')}"] = _tests[_name]
