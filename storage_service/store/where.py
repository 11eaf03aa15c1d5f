"""Conditions on rows, each stating its meaning twice: ``test`` for memory, ``sql`` for Postgres.

``test`` takes the row as a message; ``sql`` takes the table, to name the column, and ``arg``, which binds a value and gives its place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Protocol

from google.protobuf.message import Message

from storage_service import jsontext
from storage_service.store.tables import Table

Arg = Callable[[Any], str]


class Where(Protocol):
    """A condition on a row."""

    def test(self, row: Any) -> bool:
        """Whether the row fulfils the condition."""
        ...

    def sql(self, table: Table[Any], arg: Arg) -> str:
        """The condition as SQL."""
        ...


@dataclass(frozen=True)
class Equals:
    """The field has this value."""

    field: str
    value: Any

    def test(self, row: Any) -> bool:
        return bool(getattr(row, self.field) == self.value)

    def sql(self, table: Table[Any], arg: Arg) -> str:
        column = table.columns[self.field]
        return f"{column.stored} = {arg(column.dump(self.value))}{'::timestamptz' if column.is_time else ''}"


@dataclass(frozen=True)
class OneOf:
    """The field has one of these values."""

    field: str
    values: tuple[Any, ...]

    def test(self, row: Any) -> bool:
        return getattr(row, self.field) in self.values

    def sql(self, table: Table[Any], arg: Arg) -> str:
        column = table.columns[self.field]
        # A status by what orders rows, which is what the index holds.
        stored = column.sort_key if column.words else column.stored
        return f"{stored} = ANY({arg([column.dump(value) for value in self.values])}::text[])"


@dataclass(frozen=True)
class NoneOf:
    """The field has none of these values."""

    field: str
    values: tuple[Any, ...]

    def test(self, row: Any) -> bool:
        return getattr(row, self.field) not in self.values

    def sql(self, table: Table[Any], arg: Arg) -> str:
        column = table.columns[self.field]
        return f"{column.stored} <> ALL({arg([column.dump(value) for value in self.values])}::text[])"


@dataclass(frozen=True)
class Less:
    """The field has a lesser value, as the backend orders texts."""

    field: str
    value: str

    def test(self, row: Any) -> bool:
        return bool(getattr(row, self.field) < self.value)

    def sql(self, table: Table[Any], arg: Arg) -> str:
        return f"{table.columns[self.field].stored} < {arg(self.value)}"


@dataclass(frozen=True)
class Contains:
    """The JSON of the field contains this object, as ``@>`` has it."""

    field: str
    json: str

    @cached_property
    def _wanted(self) -> Any:
        return jsontext.parse(self.json)

    def test(self, row: Any) -> bool:
        text = getattr(row, self.field)
        return bool(text) and jsontext.contains(jsontext.parse(text), self._wanted)

    def sql(self, table: Table[Any], arg: Arg) -> str:
        return f"{table.columns[self.field].stored} @> {arg(self.json)}::jsonb"


@dataclass(frozen=True)
class StartsWith:
    """The text begins with this one, literally."""

    field: str
    prefix: str

    def test(self, row: Any) -> bool:
        return bool(getattr(row, self.field).startswith(self.prefix))

    def sql(self, table: Table[Any], arg: Arg) -> str:
        return f"starts_with({table.columns[self.field].stored}, {arg(self.prefix)})"


@dataclass(frozen=True)
class HasText:
    """The text holds this one, literally, whatever the case of either."""

    field: str
    text: str

    def test(self, row: Any) -> bool:
        return fold(self.text) in fold(getattr(row, self.field))

    def sql(self, table: Table[Any], arg: Arg) -> str:
        return f"strpos(lower({table.columns[self.field].stored}), lower({arg(self.text)})) > 0"


def fold(text: str) -> str:
    """Lower case character by character, as Postgres's ``lower`` does in a UTF-8 database."""
    return "".join(lower if len(lower := character.lower()) == 1 else "i" for character in text)


_ORDERING = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


@dataclass(frozen=True)
class Compares:
    """A top-level field of the JSON compares so with an operand; see FilterOperator in store.proto."""

    field: str
    key: str
    operator: str
    operand: str

    def test(self, row: Message) -> bool:
        value = jsontext.parse(getattr(row, self.field))
        wanted = jsontext.parse(self.operand)
        missing = not isinstance(value, dict) or self.key not in value
        mine: Any = None if missing else value[self.key]
        if self.operator == "=":
            return not missing and jsontext.same(mine, wanted)
        if self.operator == "<>":
            return missing or not jsontext.same(mine, wanted)
        if not any(isinstance(mine, kind) and isinstance(wanted, kind) for kind in (Decimal, str)):
            return False
        return bool(_ORDERING[self.operator](mine, wanted))

    def sql(self, table: Table[Any], arg: Arg) -> str:
        wanted = jsontext.parse(self.operand)
        if self.operator not in ("=", "<>") and not isinstance(wanted, Decimal | str):
            return "false"
        column, key = table.columns[self.field].stored, arg(self.key)
        mine = f"CASE WHEN jsonb_typeof({column}) = 'object' THEN {column} -> {key} END"
        if self.operator == "=":
            return f"coalesce({mine} = {arg(self.operand)}::jsonb, false)"
        if self.operator == "<>":
            return f"({mine} = {arg(self.operand)}::jsonb) IS NOT TRUE"
        if isinstance(wanted, Decimal):
            kind, cast, operand = "number", "::numeric", arg(self.operand) + "::numeric"
        else:
            kind, cast, operand = "string", ' COLLATE "C"', arg(wanted)
        text = f"({column} ->> {key}){cast}"
        return f"CASE WHEN jsonb_typeof({mine}) = '{kind}' THEN {text} {self.operator} {operand} ELSE false END"


@dataclass(frozen=True)
class Below:
    """The namespace begins with these labels."""

    labels: tuple[str, ...]

    def test(self, row: Any) -> bool:
        return tuple(row.namespace[: len(self.labels)]) == self.labels

    def sql(self, table: Table[Any], arg: Arg) -> str:
        # The namespace itself, and all from "a." up to "a/", the character after the dot.
        path = ".".join(self.labels)
        column = f'{table.columns["namespace"].stored} COLLATE "C"'
        return f"({column} = {arg(path)} OR ({column} >= {arg(path + '.')} AND {column} < {arg(path + '/')}))"


@dataclass(frozen=True)
class LabelsMatch:
    """The namespace begins, or ends, with labels like these; "*" is like any one label."""

    path: tuple[str, ...]
    at_end: bool

    def test(self, row: Any) -> bool:
        labels = tuple(row.namespace)
        part = labels[-len(self.path) :] if self.at_end else labels[: len(self.path)]
        return len(part) == len(self.path) and all(
            wanted in ("*", label) for wanted, label in zip(self.path, part, strict=True)
        )

    def sql(self, table: Table[Any], arg: Arg) -> str:
        labels = f"string_to_array({table.columns['namespace'].stored}, '.')"
        length = f"cardinality({labels})"
        terms = [f"{length} >= {len(self.path)}"]
        for index, label in enumerate(self.path):
            if label != "*":
                place = f"{length} - {len(self.path) - 1 - index}" if self.at_end else str(index + 1)
                terms.append(f"({labels})[{place}] = {arg(label)}")
        return "(" + " AND ".join(terms) + ")"
