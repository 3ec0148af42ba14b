# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Folders for the tests of the examples."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give one test a folder of its own for the finished images of examples/brats."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nec_ext" / "brats"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    from brats_runs import save_subjects  # which needs nibabel

    return save_subjects(tmp_path / "brats")
