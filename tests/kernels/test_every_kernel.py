# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The script for compute-sanitizer asks of no kernel more than the CPU's can give."""

import torch
from every_kernel import run_on


def test_every_kernel() -> None:
    assert run_on(torch.device("cpu")) > 300
