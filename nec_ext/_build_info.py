# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""What was built, and what of it is in use."""

from __future__ import annotations

from importlib.metadata import version

import torch

from ._ops import extension

__version__ = version("nec_ext")


def build_info() -> dict[str, str | None]:
    """Facts for a bug report.

    Returns:
        ``version`` of nec_ext, ``commit`` of a build from a checkout, ``torch`` in use,
        ``compiler``, ``cuda`` and ``cuda_architectures`` of the kernels (None without),
        ``cpu_capabilities`` compiled and ``cpu_capability`` chosen.
    """
    return {
        "version": __version__,
        # 0.2.0.dev41+g0123abc: of the metadata, so that a new commit compiles nothing again.
        "commit": __version__.partition("+")[2].removeprefix("g") or None,
        "torch": torch.__version__,
        "cuda": None,
        "cuda_architectures": None,
        **extension.build_info(),
    }
