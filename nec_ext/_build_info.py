# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Tells what was built, and which parts of it are in use."""

from __future__ import annotations

from importlib.metadata import version

import torch

from ._ops import extension

__version__ = version("nec_ext")
_OF_EXTENSION = ("compiler", "cuda", "cuda_architectures", "cpu_capabilities", "cpu_capability")


def build_info() -> dict[str, str | None]:
    """Return the facts that a bug report needs.

    Returns:
        ``version`` of nec_ext, ``commit`` of a build from a checkout, ``torch`` in use,
        ``compiler``, ``cuda`` and ``cuda_architectures`` of the kernels (None without),
        ``cpu_capabilities`` compiled and ``cpu_capability`` chosen. All but the first three are
        None where nec_ext was installed without its extension.
    """
    return {
        "version": __version__,
        # From the metadata, as in 0.2.0.dev41+g0123abc: a constant in the extension would have to
        # be compiled again after each commit.
        "commit": __version__.partition("+")[2].removeprefix("g") or None,
        "torch": torch.__version__,
        **dict.fromkeys(_OF_EXTENSION),
        **({} if extension is None else extension.build_info()),
    }
