# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Processes that the tests of the parts share."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sharding import Ranks
from tiles import WAYS, copy_tiles


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Start three processes with a group when the first test asks for them."""
    with closing(Ranks(3, tmp_path_factory.mktemp("ranks"))) as ranks:
        yield ranks


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test as on the device of the images, and as on another one."""
    if request.param == "through copies":
        copy_tiles(monkeypatch)
    return str(request.param)
