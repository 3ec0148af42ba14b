# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pairwise parameters: every value of one factor meets every value of every other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from allpairspy import AllPairs


def covering(**factors: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by the fewest rows in which each pair of values of two factors occurs.

    Args:
        **factors: the values of each argument of the test.
    """
    rows = [tuple(row) for row in AllPairs([list(values) for values in factors.values()])]
    return pytest.mark.parametrize(
        tuple(factors), rows, ids=["-".join(map(_id, row)) for row in rows]
    )


def _id(value: Any) -> str:
    return str(getattr(value, "name", getattr(value, "__name__", value)))
