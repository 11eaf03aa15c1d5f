"""The portable serializer: what both languages read and write, what comes back as it was, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
from collections import OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Overwrite, Send, TimeoutPolicy

from agentstorage.langgraph import NotPortable, PortableSerializer
from agentstorage.langgraph.portable import PORTABLE
from agentstorage.langgraph.portable_channels import of_python
from tests.docs.markdown import ROOT
from tests.langgraph.ciphers import Mask

VECTORS = json.loads((ROOT / "clients/portable/vectors.json").read_text())
SERDE = PortableSerializer()
CALL = {"name": "f", "args": {}, "id": "c1", "type": "tool_call"}


def _removed(message_id: str) -> Any:
    return RemoveMessage(id=message_id)


#: What each vector means in Python.
MEANT: dict[str, Any] = {
    "null": None,
    "true": True,
    "text": 'a\0"\\é😀',
    "lone surrogate": "\ud800",
    "integer": 7,
    "largest plain integer": 2**53 - 1,
    "large integer": 2**53 + 1,
    "very large negative integer": -123456789012345678901234567890,
    "small big integer": 5,
    "fraction": 0.1,
    "whole float": 1.0,
    "tiny float": 5e-324,
    "large whole float": 2.0**60,
    "not a number": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "negative zero": -0.0,
    "array": [1, [2, []], "3", None],
    "object": {"a": 1, "b": {"c": []}},
    "odd keys": {"": 1, "__proto__": {"x": 2}, "constructor": 3, "a b": 4},
    "object like a tagged one": {"$": "bytes", "v": "AAE="},
    "object like a tagged one, inside": {"a": {"$": 1}, "$": None},
    "bytes": {"a": b"\0\1\xff"},
    "no bytes": [b""],
    "instant": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    "instant with microseconds": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "instant with an offset": datetime(2026, 1, 2, 3, 4, 5, 678000, timezone(timedelta(hours=2))),
    "instant before 1970, with an odd offset": datetime(
        99, 12, 31, 23, 59, 59, 999999, timezone(-timedelta(hours=5, minutes=30, seconds=15))
    ),
    "date and time without a zone": datetime(2026, 1, 2, 3, 4, 5, 6),
    "date": date(2026, 1, 2),
    "time": time(3, 4, 5, 6),
    "time with an offset": time(3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    "duration": -timedelta(days=1, microseconds=1),
    "uuid": UUID("12345678-1234-5678-9abc-123456789abc"),
    "decimal": Decimal("1.10"),
    "decimal exponent": Decimal("-1E+30"),
    "set": {"a", 1, b"\0"},
    "empty set": set(),
    "map": {1: "one", "1": "text", None: []},
    "map of texts": {"a": 1},
    "undefined": [None],
    "human message": HumanMessage("hello"),
    "human message of blocks": HumanMessage(
        [{"type": "text", "text": "see"}, {"type": "image", "base64": "AAE=", "mime_type": "image/png"}],
        name="ann",
        id="h1",
    ),
    "ai message": AIMessage(
        "",
        id="a1",
        additional_kwargs={"refusal": None},
        response_metadata={"model": "m", "at": datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)},
        tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "c1", "type": "tool_call"}],
        invalid_tool_calls=[{"name": "x", "args": "{", "id": "c2", "error": "no JSON", "type": "invalid_tool_call"}],
        usage_metadata={
            "input_tokens": 1,
            "output_tokens": 2,
            "total_tokens": 3,
            "input_token_details": {"cache_read": 1},
        },
    ),
    "ai message with raw tool calls": AIMessage.model_construct(
        content="x",
        additional_kwargs={
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        },
    ),
    "ai message of version 1": AIMessage("x", response_metadata={"output_version": "v1"}, tool_calls=[CALL]),
    "ai message chunk": AIMessageChunk.model_construct(
        content="par",
        id="a2",
        tool_calls=[CALL],
        tool_call_chunks=[{"name": "f", "args": "{", "id": "c1", "index": 0, "type": "tool_call_chunk"}],
    ),
    "system message": SystemMessage("be kind"),
    "tool message": ToolMessage("rain", name="weather", id="t1", tool_call_id="c1", artifact=b"\0\1", status="error"),
    "function message": FunctionMessage(content="4", name="add"),
    "chat message": ChatMessage(content="hm", role="critic"),
    "message that removes": _removed("h1"),
    "message with more": HumanMessage("x", **{"$": 1, "example": True}),
    "document": Document("text", metadata={"page": 1}, id="d1"),
    "send": Send("work", {"n": 1}),
    "send with a timeout": Send("work", None, timeout=TimeoutPolicy(run_timeout=0.07)),
    "interrupt": [Interrupt({"question": "go?"}, id="0123456789abcdef0123456789abcdef")],
    "overwrite": Overwrite([1]),
    "snapshot of a delta channel": _DeltaSnapshot(["a"]),
}


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal in all that a serializer could lose: classes, the sign of 0, NaN, offsets."""
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return repr(first) == repr(second)
    if isinstance(first, (datetime, time, Decimal)):
        return str(first) == str(second)
    if isinstance(first, BaseMessage):
        return same(first.__dict__, second.__dict__) and same(first.model_extra, second.model_extra)
    if isinstance(first, Send):
        return first.node == second.node and first.timeout == second.timeout and same(first.arg, second.arg)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    return bool(first == second)


def _again(value: Any) -> Any:
    return SERDE.loads_typed(SERDE.dumps_typed(value))


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_vectors_are_read_and_written(vector: dict[str, str]) -> None:
    read = SERDE.loads_typed((VECTORS["type"], vector["text"].encode()))
    assert same(read, MEANT[vector["name"]]), read
    kind, data = SERDE.dumps_typed(MEANT[vector["name"]])
    assert kind == VECTORS["type"]
    expected = vector.get("python_writes", vector["text"])
    assert json.dumps(json.loads(data), sort_keys=True) == json.dumps(json.loads(expected), sort_keys=True)


def test_every_vector_has_a_meaning() -> None:
    assert set(MEANT) == {vector["name"] for vector in VECTORS["vectors"]}


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_what_is_broken_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(NotPortable):
        SERDE.loads_typed((VECTORS["type"], vector["text"].encode()))


_TEXTS = st.text() | st.text(st.characters(categories=["Cs"]), max_size=1)
_OFFSETS = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
_HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.binary()
    | st.datetimes(timezones=st.none() | _OFFSETS)
    | st.dates()
    | st.times(timezones=st.none() | _OFFSETS)
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
)
_LEAVES = _HASHABLE | st.floats() | st.decimals()


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    blocks = st.lists(_TEXTS | st.dictionaries(_TEXTS, inner, max_size=2), max_size=2)
    content = _TEXTS | blocks
    return (
        st.lists(inner, max_size=4)
        | st.dictionaries(_TEXTS | st.sampled_from(["$", "v", "__proto__"]), inner, max_size=4)
        | st.dictionaries(_HASHABLE, inner, max_size=3)
        | st.sets(_HASHABLE, max_size=3)
        | st.builds(
            HumanMessage, content, id=st.none() | _TEXTS, additional_kwargs=st.dictionaries(_TEXTS, inner, max_size=2)
        )
        | st.builds(
            ToolMessage, content, tool_call_id=_TEXTS, artifact=inner, status=st.sampled_from(["success", "error"])
        )
        | st.builds(
            lambda args: AIMessage("", tool_calls=[{**CALL, "args": args}]), st.dictionaries(_TEXTS, inner, max_size=2)
        )
        | st.builds(Send, _TEXTS, inner)
        | st.builds(_DeltaSnapshot, inner)
    )


VALUES = st.recursive(_LEAVES, _containers, max_leaves=12)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert same(_again(value), value)


_ODD = st.recursive(
    st.none() | st.integers() | st.text() | st.sampled_from(["int", "map", "set", "message", "object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$", "v", "type", "content", "a"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(max_examples=500, deadline=None)
@given(_ODD)
def test_any_json_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(NotPortable):
        SERDE.loads_typed((PORTABLE, json.dumps(value).encode()))


def test_bytes_travel_as_they_are() -> None:
    assert SERDE.dumps_typed(b"\0\xff") == ("bytes", b"\0\xff")
    assert SERDE.loads_typed(("bytes", b"\0\xff")) == b"\0\xff"


def test_tuples_are_lists_and_frozensets_sets() -> None:
    assert _again((1, (2,))) == [1, [2]]
    assert same(_again(frozenset({1})), {1})
    # In sets and keys, lists can't be.
    assert _again({(1, (2,)): frozenset({(3,)}), frozenset({4}): 5}) == {(1, (2,)): {(3,)}, frozenset({4}): 5}


def test_subclasses_of_plain_values_are_plain() -> None:
    class Number(int):
        pass

    for value, plain in [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {1: [2]}), {1: [2]}),
        (HumanMessage("a text").text, "a text"),
        (Number(3), 3),
        (Number(2**60), 2**60),
    ]:
        assert same(_again(value), plain)


def test_named_zones_become_their_offset() -> None:
    there = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris"))
    assert same(_again(there), there.replace(tzinfo=timezone(timedelta(hours=2))))


def test_equal_sets_are_equal_bytes() -> None:
    members = [f"member {number}" for number in range(50)]
    assert SERDE.dumps_typed(set(members)) == SERDE.dumps_typed(set(reversed(members)))


def test_a_failure_is_kept_as_its_text() -> None:
    assert _again(ValueError("no")) == "ValueError('no')"
    with pytest.raises(NotPortable, match=r'value\["error"\] is of the class builtins\.ValueError'):
        SERDE.dumps_typed({"error": ValueError("no")})


class Color(enum.Enum):
    RED = "red"


class Flavor(enum.StrEnum):
    SWEET = "sweet"


class Model(pydantic.BaseModel):
    a: int = 1


@dataclasses.dataclass
class Record:
    a: int = 1


class OwnMessage(HumanMessage):
    pass


Pair = namedtuple("Pair", "a b")


class Thing:
    pass


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Color.RED, "Color: keep its value"),
        (Flavor.SWEET, "Flavor: keep its value"),
        (Model(), "keep a dict, such as value.model_dump(mode='json')"),
        (Record(), "keep a dict, such as dataclasses.asdict(value)"),
        (Pair(1, 2), "keep a dict, such as value._asdict()"),
        (OwnMessage(content="x"), "OwnMessage: keep a message of LangChain's own classes"),
        (Thing(), "Thing, which other languages do not have"),
        (Thing, "a class, which is code"),
        (len, "code, not a value"),
        (lambda: 1, "code, not a value"),
        (bytearray(b"x"), "keep bytes(value)"),
        (deque([1]), "collections.deque"),
        (1j, "builtins.complex"),
        (Command(goto="a"), "langgraph.types.Command"),
        (10**4300, "more than 4300 digits"),
        (time(1, tzinfo=ZoneInfo("Europe/Paris")), "no offset without a date"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_portable_is_refused_with_its_place(value: Any, told: str) -> None:
    state = {"steps": [0, HumanMessage("x", additional_kwargs={"found": {1: value}})]}
    with pytest.raises(NotPortable) as refused:
        SERDE.dumps_typed(state)
    assert told in str(refused.value)
    assert refused.value.path == ("steps", 1, "additional_kwargs", "found", 1)
    assert str(refused.value).startswith('value["steps"][1]["additional_kwargs"]["found"][1] is ')


def test_what_is_nested_in_itself_or_too_deeply_is_refused() -> None:
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(NotPortable, match="more than 200 levels deep, or in itself"):
        SERDE.dumps_typed(itself)
    deep: Any = 1
    for _ in range(200):
        deep = {None: [deep]} if _ % 2 else [deep]
    with pytest.raises(NotPortable, match="more than 200 levels"):
        SERDE.dumps_typed(deep)
    for wrap in (lambda inner: [inner], lambda inner: {1: inner}, lambda inner: {"$": inner}):
        value: Any = 1
        for _ in range(200):
            value = wrap(value)
        assert _again(value) == value
    with pytest.raises(NotPortable, match="nested too deeply"):
        SERDE.loads_typed((PORTABLE, b"[" * 100_000 + b"]" * 100_000))


def test_members_that_python_takes_for_one_are_refused() -> None:
    for text in ('{"$":"set","v":[1,true]}', '{"$":"map","v":[[1,"a"],[1.0,"b"]]}', '{"$":"set","v":[{"a":1}]}'):
        with pytest.raises(NotPortable):
            SERDE.loads_typed((PORTABLE, text.encode()))


@pytest.mark.parametrize("value", [None, {"a": {1, 2}}, HumanMessage("x"), b"x", bytearray(b"x")])
def test_rows_of_the_default_serializer_are_read(value: Any) -> None:
    written = JsonPlusSerializer().dumps_typed(value)
    assert same(SERDE.loads_typed(written), value)


def test_rows_of_other_serializers_are_refused() -> None:
    with pytest.raises(NotPortable, match=r'of the type "portable.v2" .* needs a newer agentstorage'):
        SERDE.loads_typed(("portable.v2", b""))
    with pytest.raises(NotPortable, match="encrypted"):
        SERDE.loads_typed(("portable.v1+aes", b""))
    with pytest.raises(NotPortable, match=r'"pickle"'):
        SERDE.loads_typed(("pickle", b""))
    # LangGraph.js's default serializer: what Python's reads is read, what it would leave as a record is not.
    message = (
        b'{"lc":1,"type":"constructor","id":["langchain_core","messages","HumanMessage"],"kwargs":{"content":"x"}}'
    )
    assert SERDE.loads_typed(("json", message)).content == "x"
    for text in (b'[{"lc":2,"type":"constructor","id":["Set"],"args":[[1]]}]', b'{"a":{"lc":2,"type":"undefined"}}'):
        with pytest.raises(NotPortable, match="continue this thread in TypeScript"):
            SERDE.loads_typed(("json", text))


def test_it_works_encrypted_and_with_an_allowlist() -> None:
    value: list[AnyMessage] = [HumanMessage("secret", id="1")]
    serde = EncryptedSerializer(Mask(), PortableSerializer())
    kind, data = serde.dumps_typed(value)
    assert kind.startswith(f"{PORTABLE}+")
    assert b"secret" not in data
    assert serde.loads_typed((kind, data)) == value
    strict = PortableSerializer(allowed_msgpack_modules=None).with_msgpack_allowlist([("builtins", "slice")])
    assert isinstance(strict, PortableSerializer)
    assert strict.dumps_typed(value)[0] == PORTABLE


@pytest.mark.parametrize(
    ("channel", "kept", "expected"),
    [
        ("join:a+b:c", ["a"], {"a"}),
        ("join:a+b:c", [], set()),
        ("join:a+b:c", [["a", "b"], True], ({"a", "b"}, True)),
        ("join:a+b:c", [{"a"}, False], ({"a"}, False)),
        ("join:a+b:c", {"a"}, {"a"}),
        ("__interrupt__", [{"id": "1", "value": "go?"}], [Interrupt("go?", id="1")]),
        ("__interrupt__", [Interrupt("go?", id="1")], [Interrupt("go?", id="1")]),
        ("__interrupt__", {"id": "1"}, {"id": "1"}),
        ("messages", ["a"], ["a"]),
        ("messages", [{"id": "1", "value": "go?"}], [{"id": "1", "value": "go?"}]),
    ],
)
def test_what_langgraph_js_keeps_for_itself_is_as_python_keeps_it(channel: str, kept: Any, expected: Any) -> None:
    assert same(of_python(channel, kept), expected)
