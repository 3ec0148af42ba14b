# SPDX-License-Identifier: Apache-2.0
# Copyright (c) 2026 The nec_ext authors
"""The values of options, by the type of their field: numbers in a range, names, lists."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple


class Rule(NamedTuple):
    """A condition on a number, and its words in a message."""

    text: str
    holds: Callable[[float], bool]


Count = Annotated[int, Rule("a whole number of at least 1", lambda n: n >= 1)]
Index = Annotated[int, Rule("a whole number of at least 0", lambda n: n >= 0)]
Positive = Annotated[float, Rule("a positive number", lambda x: 0 < x < float("inf"))]
Weight = Annotated[float, Rule("a number of at least 0", lambda x: 0 <= x < float("inf"))]
Share = Annotated[float, Rule("a number in [0, 1]", lambda x: 0 <= x <= 1)]
Correlation = Annotated[float, Rule("a number in [-1, 1]", lambda x: -1 <= x <= 1)]
Decay = Annotated[float, Rule("a number in [0, 1)", lambda x: 0 <= x < 1)]


def as_text(value: object) -> str:
    """Write a value as the command line would, so that values of all sources are read alike."""
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(part) for part in value)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def parse_value(kind: object, text: str) -> object:
    """Parse the text of a value; raise ValueError if it is none of this kind."""
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is Annotated:
        value = parse_value(parts[0], text)
        if not parts[1].holds(value):
            raise ValueError
        return value
    if origin in (types.UnionType, typing.Union):
        if text == "none" and types.NoneType in parts:
            return None  # and not the text "none"
        for part in parts:
            try:
                return parse_value(part, text)
            except ValueError:
                continue
        raise ValueError
    if origin is tuple:
        texts = text.split(",")
        if parts[-1] is not Ellipsis and len(texts) != len(parts):
            raise ValueError
        return tuple(parse_value(parts[0], one.strip()) for one in texts)
    if origin is Literal or kind is bool:
        values = {str(part).lower(): part for part in parts or (True, False)}
        if text not in values:
            raise ValueError
        return values[text]
    return kind(text)  # type: ignore[operator]


def describe(kind: object) -> str:
    """Describe the values of a kind, for a sentence."""
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is Annotated:
        return str(parts[1].text)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(describe, parts))
    if origin is tuple:
        count = "" if parts[-1] is Ellipsis else f"{len(parts)} "
        return f"{count}values separated by commas, each {describe(parts[0])}"
    if origin is Literal:
        return f"{'one of ' * (len(parts) > 1)}{', '.join(map(str, parts))}"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        types.NoneType: "none",
    }
    return names.get(kind, "text")  # type: ignore[call-overload]
