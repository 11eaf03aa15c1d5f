"""JSON texts as ``jsonb`` has them, held against Postgres itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage_service import jsontext
from tests.postgres_server import PostgresServer

_LIMIT = 1_000_000


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        yield connection


def ask(postgres: psycopg.Connection[Any], expression: LiteralString, *values: str) -> Any:
    row = postgres.execute(f"SELECT {expression}", values).fetchone()
    assert row is not None
    return row[0]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
NUMBERS = st.one_of(
    st.integers().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?\Z"),
).filter(lambda text: abs(int(text.lower().partition("e")[2] or 0)) < 500)


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + " ,".join(f"{jsontext.single(key, '')[1:-5]}: {value}" for key, value in pairs) + "}"


# Documents as texts, with spaces and equal keys.
DOCUMENTS = st.recursive(
    st.one_of(
        NUMBERS,
        st.sampled_from(["true", "false", "null"]),
        TEXTS.map(lambda text: jsontext.single("", text)[5:-1]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[ " + ",".join(items) + "]"),
        st.lists(st.tuples(st.one_of(st.sampled_from(["a", "b", "ab", "é"]), TEXTS), inner), max_size=4).map(_object),
    ),
    max_leaves=8,
)
thorough = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@thorough
@given(text=DOCUMENTS)
def test_canonical_is_what_jsonb_prints(postgres: psycopg.Connection[Any], text: str) -> None:
    jsontext.check(text, max_bytes=_LIMIT)
    assert jsontext.canonical(text) == ask(postgres, "%s::jsonb::text", text)


@pytest.mark.parametrize(
    "text",
    [
        "1e5", "1E+5", "-1.50e-3", "0e10", "-0e-3", "0.000", "100e-2", "1e131071", "1e-16383", "12.5e1", "-0.0e1", "1.0e0",
        '"\\u00e9"', '"\\ud83d\\ude00"', '"\\/"', '"\x7f"', '{"b":1,"aa":2,"a":3,"é":4,"":5}', '{"a":1,"a":2,"b":{"a":1,"a":3}}',
        '{"\\u0061": 1, "a": 2}', "[]", "{}", "[[[]]]", " \n\t\r1", '"\\u001f\\b\\f\\n\\r\\t\\"\\\\"', '{"\U0001f600": 1, "zzzz": 2}',
        "-0", f'{{"a": {"9" * 5000}, "aa": -{"9" * 4000}}}', '{"a": 1, "b": [2, 3.50], "A": {"x": 1e2}}', '{"a": "e", "b": [-1]}',
    ],
)  # fmt: skip
def test_canonical_of_examples(postgres: psycopg.Connection[Any], text: str) -> None:
    jsontext.check(text, max_bytes=_LIMIT)
    assert jsontext.canonical(text) == ask(postgres, "%s::jsonb::text", text)
    assert jsontext.canonical(jsontext.canonical(text)) == jsontext.canonical(text)


@thorough
@given(text=st.one_of(st.text(max_size=8), st.text('{}[],:"\\u01eE+-. truefalsn', max_size=10)))
def test_what_is_taken_jsonb_takes(postgres: psycopg.Connection[Any], text: str) -> None:
    try:
        jsontext.check(text, max_bytes=_LIMIT)
    except jsontext.InvalidJson:
        return
    assert ask(postgres, "%s::jsonb::text", text) == jsontext.canonical(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", "NaN", "[Infinity]", "-Infinity", "01", "1.", ".5", '"\\u0000"', '{"\\u0000":1}', '"\\ud800"', "\ufeff1",
     '"\\udc00\\ud800"', "1e131072", "1e-16384", "1" * 131073, "1e99999999999999999999", "'a'", '"\n"', "[" * 101 + "]" * 101],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(jsontext.InvalidJson) as caught:
        jsontext.check(text, max_bytes=_LIMIT)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    ("text", "max_bytes", "taken"),
    [('"abc"', 5, True), ('"abc"', 4, False), ('"é"', 4, True), ('"éé"', 5, False), ("1e9", 9, False), ("1e2", 100, True),
     ("[1e50,1e50]", 100, False), ("[1e50,1e50]", 120, True)],
)  # fmt: skip
def test_bytes(text: str, max_bytes: int, taken: bool) -> None:
    if taken:
        jsontext.check(text, max_bytes=max_bytes)
    else:
        with pytest.raises(jsontext.InvalidJson, match="larger"):
            jsontext.check(text, max_bytes=max_bytes)


@pytest.mark.parametrize(("kind", "text"), [(dict, "[]"), (dict, "1"), (list, "{}"), (list, "null"), (dict, '"{}"')])
def test_kinds(kind: type, text: str) -> None:
    with pytest.raises(jsontext.InvalidJson, match="must be a JSON"):
        jsontext.check(text, max_bytes=_LIMIT, kind=kind)
    jsontext.check("{}" if kind is dict else "[]", max_bytes=_LIMIT, kind=kind)


@thorough
@given(left=DOCUMENTS, right=DOCUMENTS.filter(lambda text: text[0] in "[{"))
def test_containment_is_that_of_jsonb(postgres: psycopg.Connection[Any], left: str, right: str) -> None:
    if right[0] == "[" and left[0] not in "[{":
        return
    found = jsontext.contains(jsontext.parse(left), jsontext.parse(right))
    assert found == ask(postgres, "%s::jsonb @> %s::jsonb", left, right)


@thorough
@given(left=DOCUMENTS, right=DOCUMENTS)
def test_equality_is_that_of_jsonb(postgres: psycopg.Connection[Any], left: str, right: str) -> None:
    assert jsontext.equal(left, right) == ask(postgres, "%s::jsonb = %s::jsonb", left, right)
    assert jsontext.equal(left, left)


OBJECTS = DOCUMENTS.filter(lambda text: text[0] == "{")


@thorough
@given(left=OBJECTS, right=OBJECTS, remove=st.lists(st.sampled_from(["a", "b", "é"]), max_size=2))
def test_merge_is_that_of_jsonb(postgres: psycopg.Connection[Any], left: str, right: str, remove: list[str]) -> None:
    row = postgres.execute("SELECT ((%s::jsonb || %s::jsonb) - %s::text[])::text", (left, right, remove)).fetchone()
    assert row is not None
    assert jsontext.merge(left, right, tuple(remove)) == row[0]


@thorough
@given(document=OBJECTS, path=st.lists(st.sampled_from(["a", "b", "ab", "é", ""]), min_size=1, max_size=3))
def test_what_lies_at_a_path_is_that_of_jsonb(
    postgres: psycopg.Connection[Any], document: str, path: list[str]
) -> None:
    # Of arrays jsonb takes numbers as a path, which are not asked for here.
    row = postgres.execute("SELECT %s::jsonb #>> %s::text[]", (document, path)).fetchone()
    assert row is not None
    assert jsontext.text_at(document, *path) == row[0]


@thorough
@given(document=OBJECTS, key=st.sampled_from(["a", "b", "é"]))
def test_members_are_those_of_jsonb(postgres: psycopg.Connection[Any], document: str, key: str) -> None:
    rows = postgres.execute(
        "SELECT key, value::text, (d -> %s) ->> key FROM (SELECT %s::jsonb) AS x (d),"
        " jsonb_each(CASE jsonb_typeof(d -> %s) WHEN 'object' THEN d -> %s END)",
        (key, document, key, key),
    ).fetchall()
    found = jsontext.members(document, key)
    assert found == {name: value for name, value, _ in rows}
    assert {name: jsontext.text_of(value) for name, value in found.items() if value != "null"} == {
        name: text for name, _, text in rows if text is not None
    }


def test_helpers() -> None:
    assert jsontext.pick('{"a": 1, "b": 2}', "b") == '{"b": 2}'
    assert jsontext.pick('{"a": 1}', "b") == "{}"
    assert jsontext.count_keys('{"a": {"b": [{"c": 1}, 2, "{}"]}, "d": null}') == 4
    assert jsontext.single("k", 'é"') == '{"k": "é\\""}'
    assert not jsontext.equal("true", "1")
    assert jsontext.equal("1", "1.00")
    assert jsontext.equal('{"a": [1, 2e0]}', '{"a":[1.0,2]}')


def test_a_text_holds_so_many_values_and_no_more() -> None:
    # To read many millions would keep every other call waiting.
    many = jsontext.MOST_VALUES
    jsontext.check("[" + "1," * (many - 2) + "1]", max_bytes=2**24)
    jsontext.check('["' + "1," * 2 * many + '"]', max_bytes=2**24)
    for text in ("[" + "1," * many + "1]", "[" + "[]," * many + "1]", "[" + '{"a":1},' * many + "1]"):
        with pytest.raises(jsontext.InvalidJson, match="more than 1000000 values"):
            jsontext.check(text, max_bytes=2**24)


@pytest.mark.parametrize("first", ["[" * 101 + "]" * 101, r'"\u0000"', r'"\ud800"', r'{"\u0000": 1}'])
def test_what_a_key_that_comes_again_replaces_is_checked_too(first: str) -> None:
    # jsonb reads it before it leaves it out.
    with pytest.raises(jsontext.InvalidJson):
        jsontext.check(f'{{"a": {first}, "a": 1}}', max_bytes=1000)


def test_a_long_text_of_brackets_is_not_deep() -> None:
    jsontext.check('"' + "[" * 1000 + '"', max_bytes=2000)
    jsontext.check('{"a": "' + "[" * 1000 + '"}', max_bytes=2000, kind=dict)
