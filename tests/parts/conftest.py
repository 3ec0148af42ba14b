# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Processes that the tests of the parts share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ranks import Ranks, started
from tiles import WAYS, copy_tiles


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Three processes with a group, which start when the first test asks for them."""
    with started(3, tmp_path_factory.mktemp("ranks")) as ranks:
        yield ranks


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """As on the device of the images, or as on another one: tiles are copied there and back."""
    if request.param == "through copies":
        copy_tiles(monkeypatch)
    return str(request.param)
