"""Conditions on rows: what each means in memory is what its SQL means."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from agentstorage.v1 import assistants_pb2, store_pb2
from storage_service.store.postgres.rows import Values
from storage_service.store.tables import ASSISTANTS, ITEMS, Table
from storage_service.store.where import (
    Below,
    Compares,
    Contains,
    Equals,
    HasText,
    LabelsMatch,
    Less,
    NoneOf,
    OneOf,
    StartsWith,
    Where,
)
from tests.postgres_server import PostgresServer

TEXTS = (
    "",
    "a",
    "A",
    "a.b",
    "ab",
    "a%",
    "a_",
    "\\",
    "é",
    "e\u0301",
    "ß",
    "SS",
    "Σ",
    "ς",
    "İ",
    "i̇",
    "ǅ",
    "\U0001f600",
    "'",
    " ",
    "a/",
    "a-",
)
JSONS = (
    "1", "1.0", "-0", '"1"', "null", "true", "[]", "[1, 2]", "{}", '{"a": 1}', '{"a": 1.0}', '{"a": "1"}', '{"a": null}', '{"a": [1]}',
    '{"a": {"b": 2}}', '{"a": true}', '{"a": "é"}', '{"a": "Z"}', '{"a": 10}', '{"a": 9}', '{"a": "10"}', '{"é": 1}', '["a"]', '"a"',
    '{"a": 9007199254740993}', '{"a": [1, {"b": 2}], "c": 1}',
)  # fmt: skip
LABELS = (
    ("a",),
    ("a", "b"),
    ("ab",),
    ("A",),
    ("a", "b", "c"),
    ("a-",),
    ("a/",),
    ("a ",),
    ("é", "a"),
    ("*",),
    ("b", "a"),
    ("a\u0301",),
)
OPERATORS = ("=", "<>", ">", ">=", "<", "<=")
PATHS = (("a",), ("*",), ("a", "*"), ("*", "b"), ("*", "*", "c"), ("a", "b"), ("b",), ("%",), ("é",))


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(
        postgres_server.url(), autocommit=True, cursor_factory=psycopg.RawCursor, prepare_threshold=None
    ) as connection:
        connection.execute("CREATE TEMP TABLE item (n int, namespace text, key text, value jsonb)")
        connection.execute("CREATE TEMP TABLE assistant (n int, id text, name text, metadata jsonb)")
        with connection.cursor() as cursor:
            for number, item in enumerate(ITEM_ROWS):
                cursor.execute(
                    "INSERT INTO item VALUES ($1, $2, $3, $4)",
                    (number, ".".join(item.namespace), item.key, item.value),
                )
            for number, row in enumerate(ASSISTANT_ROWS):
                cursor.execute(
                    "INSERT INTO assistant VALUES ($1, $2, $3, $4::jsonb)",
                    (number, row.assistant_id, row.name or None, row.metadata),
                )
        yield connection


def _items() -> list[store_pb2.Item]:
    chosen = random.Random(7)
    items = [
        store_pb2.Item(namespace=labels, key=chosen.choice(TEXTS), value=chosen.choice(JSONS)) for labels in LABELS
    ]
    return (
        items
        + [store_pb2.Item(namespace=chosen.choice(LABELS), key=text, value="1") for text in TEXTS]
        + [store_pb2.Item(namespace=("a",), key="k", value=value) for value in JSONS]
    )


ITEM_ROWS = _items()
ASSISTANT_ROWS = [assistants_pb2.Assistant(assistant_id=text, name=text, metadata="{}") for text in TEXTS] + [
    assistants_pb2.Assistant(assistant_id=f"m{number}", metadata=value) for number, value in enumerate(JSONS)
]


def conditions() -> list[tuple[Table[Any], Where]]:
    found: list[tuple[Table[Any], Where]] = []
    for text in TEXTS:
        found += [(ITEMS, Equals("key", text)), (ITEMS, OneOf("key", (text, "a"))), (ITEMS, StartsWith("key", text))]
        found += [(ASSISTANTS, Equals("assistant_id", text)), (ASSISTANTS, OneOf("assistant_id", (text, "absent")))]
        found += [(ITEMS, Less("key", text)), (ASSISTANTS, Less("assistant_id", text))]
        found += [(ITEMS, NoneOf("key", (text, "a"))), (ASSISTANTS, NoneOf("assistant_id", (text, "absent")))]
        if text:
            found.append((ASSISTANTS, HasText("name", text)))
    found += [(ASSISTANTS, Contains("metadata", value)) for value in JSONS if value.startswith("{")]
    for value in JSONS:
        found += [(ITEMS, Compares("value", key, operator, value)) for key in ("a", "é") for operator in OPERATORS]
    found += [(ITEMS, Compares("value", "a", operator, '"é"')) for operator in OPERATORS]
    found += [(ITEMS, Below(labels)) for labels in LABELS]
    found += [(ITEMS, Equals("namespace", list(labels))) for labels in LABELS]
    found += [(ITEMS, LabelsMatch(path, at_end)) for path in PATHS for at_end in (False, True)]
    return found


@pytest.mark.parametrize(("table", "where"), conditions())
def test_memory_and_sql_mean_the_same(postgres: psycopg.Connection[Any], table: Table[Any], where: Where) -> None:
    rows: list[Any] = list(ITEM_ROWS if table is ITEMS else ASSISTANT_ROWS)
    values = Values()
    condition = where.sql(table, values)
    statement = f"SELECT n FROM {table.resource} WHERE {condition} ORDER BY n"
    found = [row[0] for row in postgres.execute(statement, values)]
    assert found == [number for number, row in enumerate(rows) if where.test(row)]


def test_every_condition_matches_and_misses_something() -> None:
    """Each kind of condition is tried on rows that fulfil it and on rows that do not."""
    seen: dict[str, set[bool]] = {}
    for table, where in conditions():
        rows: list[Any] = list(ITEM_ROWS if table is ITEMS else ASSISTANT_ROWS)
        seen.setdefault(type(where).__name__, set()).update(where.test(row) for row in rows)
    assert seen == {name: {True, False} for name in seen}
