# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Keeps tests from seeing each other, and skips those that lack a package."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

EXAMPLES = ("matplotlib", "monai", "nibabel", "scipy", "skimage", "tqdm")
# Of the tests of a folder.
NEEDED = {"examples": EXAMPLES, "benchmarks": (*EXAMPLES, "pytest_benchmark")}


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    needed = NEEDED.get(module_path.parent.name, ())
    missing = [name for name in needed if find_spec(name) is None]

    class Skipped(pytest.Module):
        def collect(self) -> list[pytest.Item]:
            pytest.skip(f"without {', '.join(missing)}")

    return Skipped.from_parent(parent, path=module_path) if missing else None


@pytest.fixture(autouse=True)
def unchanged_settings() -> Iterator[None]:
    """Fail a test that leaves a global setting of torch behind, and puts the setting right."""
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    after = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_num_threads(before[0])
    torch.set_default_dtype(before[1])
    torch.set_grad_enabled(before[2])
    assert after == before


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch's own generator, from which a few tests draw."""
    torch.manual_seed(0)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give one test a folder of its own for the finished images of examples/brats."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nec_ext" / "brats"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    from brats_runs import save_subjects  # which needs nibabel

    return save_subjects(tmp_path / "brats")
