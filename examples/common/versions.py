# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The versions and the build on which a result depends, beside options and data."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import monai
import torch

import nec_ext


def versions() -> dict[str, object]:
    """Return the versions and the build on which a result may depend, beside its options."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "monai": monai.__version__,
        "nec_ext": nec_ext.build_info(),
        "commit": _commit(),
    }


def _commit() -> str | None:
    """Return the commit of this code, dirty after changes; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
