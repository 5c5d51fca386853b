"""Whether the fields of a dataclass hold what their annotations say, for those that people fill in."""

from __future__ import annotations

import math
from dataclasses import fields
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ecmnet_app.errors import ConfigError

__all__ = ["check_types"]

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "left out"}


def check_types(instance: Any, prefix: str = "") -> None:
    """Refuse a dataclass one of whose fields holds a value of another type than its annotation.

    A whole number passes for a float, nothing else for another type; NaN and infinity are no numbers. Of tuples the
    entries are checked, and not how many there are.

    Args:
        instance: of a dataclass; its annotations are classes, unions and tuples of these.
        prefix: what the message puts before the field's name.

    Raises:
        ConfigError: the first field that does not fit.
    """
    kinds = get_type_hints(type(instance))
    for field in fields(instance):
        value = getattr(instance, field.name)
        if not _is_a(value, kinds[field.name]):
            shown = list(value) if isinstance(value, tuple) else value
            raise ConfigError(f"{prefix}{field.name} must be {_words(kinds[field.name])}, not {shown!r}")


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (UnionType, Union):
        return any(_is_a(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(entry, get_args(kind)[0]) for entry in value)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in WORDS:
        return type(value) is kind  # True is no whole number
    return isinstance(value, kind)


def _words(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(_words(one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each entry {_words(get_args(kind)[0])}"
    return WORDS.get(kind, "a table")
