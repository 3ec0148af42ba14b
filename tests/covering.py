# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pairwise parameters: every value of one factor meets every value of every other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from allpairspy import AllPairs


def covering(*, indirect: Sequence[str] = (), **factors: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize a test by the fewest rows in which each pair of values of two factors occurs.

    Args:
        indirect: the factors whose values go to a fixture of their name.
        **factors: the values of each argument of the test.
    """
    rows = [tuple(row) for row in AllPairs([list(values) for values in factors.values()])]
    ids = ["-".join(map(_id, row)) for row in rows]
    return pytest.mark.parametrize(tuple(factors), rows, ids=ids, indirect=list(indirect))


def _id(value: Any) -> str:
    return str(getattr(value, "name", getattr(value, "__name__", value)))
