# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Skips the tests of a folder where the packages that they need are missing."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest


def skipped_without(*packages: str) -> Callable[[Path, pytest.Collector], pytest.Module | None]:
    """Make the hook ``pytest_pycollect_makemodule`` of a folder's conftest."""
    missing = [name for name in packages if find_spec(name) is None]

    class Skipped(pytest.Module):
        def collect(self) -> list[pytest.Item]:
            pytest.skip(f"without {', '.join(missing)}")

    def make(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
        return Skipped.from_parent(parent, path=module_path) if missing else None

    return make
