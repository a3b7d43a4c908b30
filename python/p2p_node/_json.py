"""Reads the node's JSON lines with the types that the protocol gives them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias, TypeVar, cast

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
"""Any value that JSON can hold."""

_T = TypeVar("_T")


class Malformed(ValueError):
    """A line that the protocol does not allow."""


class Fields:
    """A JSON object of the node's. Keys that nobody asks for are ignored: newer nodes may send more."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    @classmethod
    def parse(cls, line: bytes) -> Fields:
        """The object that one line holds."""
        try:
            value: object = json.loads(line)
        except ValueError as error:
            raise Malformed(f"not JSON: {line[:80]!r}") from error
        return cls(_object(value, "the line"))

    def has(self, name: str) -> bool:
        """Whether `name` is there and not null."""
        return self._values.get(name) is not None

    def has_integer(self, name: str) -> bool:
        """Whether `name` is a whole number."""
        return type(self._values.get(name)) is int

    def text(self, name: str) -> str:
        """A string."""
        return self._get(name, str)

    def text_or(self, name: str, default: str) -> str:
        """A string that may be missing."""
        return self._get(name, str) if self.has(name) else default

    def integer(self, name: str) -> int:
        """A whole number."""
        return self._get(name, int)

    def number(self, name: str) -> float:
        """A number with or without a fraction."""
        value = self._values.get(name)
        return float(value) if isinstance(value, int) else self._get(name, float)

    def flag(self, name: str) -> bool:
        """A boolean."""
        return self._get(name, bool)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        items = cast("list[object]", self._get(name, list))
        return tuple(_typed(item, str, name) for item in items)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        items = cast("list[object]", self._get(name, list))
        return tuple(_typed(item, int, name) for item in items)

    def inner(self, name: str) -> Fields:
        """An object within this one."""
        return Fields(_object(self._values.get(name), name))

    def inners(self, name: str) -> tuple[Fields, ...]:
        """A list of objects."""
        items = cast("list[object]", self._get(name, list))
        return tuple(Fields(_object(item, name)) for item in items)

    def strings(self, name: str) -> dict[str, str]:
        """An object whose values are strings."""
        values = _object(self._values.get(name), name)
        return {key: _typed(value, str, name) for key, value in values.items()}

    def raw(self) -> dict[str, object]:
        """All values as they came."""
        return dict(self._values)

    def _get(self, name: str, kind: type[_T]) -> _T:
        return _typed(self._values.get(name), kind, name)


def _typed(value: object, kind: type[_T], name: str) -> _T:
    # JSON's true is no number, though Python's True is an int.
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise Malformed(f"{name} is {type(value).__name__}, not {kind.__name__}")


def _object(value: object, name: str) -> Mapping[str, object]:
    return cast("dict[str, object]", _typed(value, dict, name))
