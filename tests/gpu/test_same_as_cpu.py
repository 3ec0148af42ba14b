# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The tests of the CPU once more, with everything that they make on the GPU."""

import importlib

import pytest
from gpu import gpu_by_default  # noqa: F401

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("gpu_by_default")]

for _file in (
    "kernels.test_functional",
    "kernels.test_extremes",
    "kernels.test_memory",
    "package.test_autograd",
    "package.test_transforms",
):
    for _name, _test in vars(importlib.import_module(_file)).items():
        if _name.startswith("test_"):
            globals()[f"{_file.rpartition('.')[2]}_{_name.removeprefix('test_')}"] = _test
