# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""Pairwise parameters: every value of one factor meets every value of every other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from allpairspy import AllPairs

# No row has these values together.
IMPOSSIBLE = {"form": "cross", "eps_mode": "augmented"}


def covering(
    *, indirect: Sequence[str] = (), **factors: Iterable[Any] | Mapping[str, Iterable[Any]]
) -> pytest.MarkDecorator:
    """Parametrize a test by the fewest rows in which each pair of values of two factors occurs.

    The values of an ``indirect`` factor go to a fixture of its name. A mapping holds several
    factors, of which the test gets one dictionary.
    """
    each = [
        ((name, key), [*values])
        for name, given in factors.items()
        for key, values in (given.items() if isinstance(given, Mapping) else [(None, given)])
    ]
    names = [name if key is None else key for (name, key), _ in each]
    rows, ids = [], []
    for row in AllPairs(
        [values for _, values in each],
        filter_func=lambda row: (
            not IMPOSSIBLE.items() <= dict(zip(names, row, strict=False)).items()
        ),
    ):
        arguments: dict[str, Any] = {}
        for ((name, key), _), value in zip(each, row, strict=True):
            if key is None:
                arguments[name] = value
            else:
                arguments.setdefault(name, {})[key] = value
        rows.append(tuple(arguments.values()))
        ids.append("-".join(map(_id, row)))
    return pytest.mark.parametrize(tuple(factors), rows, ids=ids, indirect=list(indirect))


def _id(value: Any) -> str:
    return str(getattr(value, "name", getattr(value, "__name__", value)))
