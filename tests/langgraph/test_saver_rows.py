"""What goes into which message, without a server."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys
from collections import deque
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, _DeltaSnapshot

from agentstorage.errors import LimitReached
from agentstorage.langgraph import AsyncGrpcSaver, checkpoints
from agentstorage.langgraph.checkpoints import MESSAGE_BYTES, Address, next_version, put_requests, write_requests
from agentstorage.langgraph.work import is_large
from agentstorage.v1 import checkpoints_pb2 as pb
from tests.langgraph.checkpoints import checkpoint, config, metadata
from tests.langgraph.ciphers import Mask

ADDRESS = Address("alice", "t1", "", "c0")
SERDE = JsonPlusSerializer()


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


def requests(
    values: dict[str, Any], serde: SerializerProtocol = SERDE, new: dict[str, str] | None = None, **about: Any
) -> list[pb.PutCheckpointRequest]:
    made = checkpoint(values)
    versions = made["channel_versions"] if new is None else new
    return put_requests(serde, ADDRESS, config("t1"), made, metadata(**about), versions)  # type: ignore[arg-type]  # text is one kind of version


def divided(values: dict[str, Any], **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """What is inline, and the types of what is not."""
    (request,) = requests(values, **options)
    return json.loads(request.checkpoint)["channel_values"], {item.channel: item.type for item in request.channels}


PLAIN = {
    "n": None,
    "t": "text",
    "é": "ünïcode \U0001f600",
    "i": -5,
    "long": 2**200,
    "f": 0.5,
    "tiny": 5e-324,
    "b": True,
    "e": "",
}
ODD = {
    "nan": math.nan,
    "infinity": -math.inf,
    "negative zero": -0.0,
    "without fraction": 1e16,
    "nul": "a\0b",
    "surrogate": "\ud800",
    "text enum": Colour.RED,
    "number enum": Level.LOW,
}


def test_values_that_json_keeps_are_inline() -> None:
    assert divided(PLAIN) == (PLAIN, {})


@pytest.mark.parametrize("name", ODD)
def test_values_that_json_changes_are_bytes(name: str) -> None:
    assert divided({"odd": ODD[name]}) == ({}, {"odd": "msgpack"})


def test_integers_beyond_json_are_left_to_the_serializer() -> None:
    with pytest.raises(TypeError, match="64-bit"):
        requests({"i": 10**4300})


def test_long_texts_are_bytes() -> None:
    inline, kept = divided({"short": "s", "long": "x" * 300_000, "after": "a"})
    assert inline == {"short": "s", "after": "a"}
    assert kept == {"long": "msgpack"}
    many = {f"c{number}": "\x01" * 10_000 for number in range(100)}
    (request,) = requests(many)
    assert len(request.checkpoint) < 16 * 1024 * 1024 / 4
    assert {*json.loads(request.checkpoint)["channel_values"], *(item.channel for item in request.channels)} == {*many}


def test_other_values_are_bytes_of_new_versions_only() -> None:
    values = {"old": [1], "new": [2], "data": b"x"}
    inline, kept = divided(values, new={"new": "2", "data": "2"})
    assert inline == {}
    assert kept == {"new": "msgpack", "data": "bytes"}


def test_channels_without_a_value_are_left_out() -> None:
    assert divided({}, new={"gone": "3"}) == ({}, {})


def test_snapshots_are_bytes_and_marked() -> None:
    assert divided({"log": _DeltaSnapshot([1])}) == ({"log": True}, {"log": "msgpack"})


def test_what_a_serializer_hides_is_nowhere_else() -> None:
    secret = EncryptedSerializer(Mask())
    values = {**PLAIN, **ODD, "list": ["secret"]}
    del values["long"]
    inline, kept = divided(values, serde=secret)
    assert inline == {}
    assert {*kept} == {*values}
    assert {kind.partition("+")[2] for kind in kept.values()} == {"mask"}
    # Nor in versions that something else may have written.
    assert divided({"t": "text", "list": []}, serde=secret, new={}) == ({}, {"t": "msgpack+mask"})


def test_any_serializer_of_ones_own_sees_every_value() -> None:
    class Own(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            return super().dumps_typed(obj)

    assert divided({"t": "text"}, serde=Own()) == ({}, {"t": "msgpack"})


def test_metadata_holds_no_nul() -> None:
    (request,) = requests({}, note="a\0b", nested={"k\0": ["\0", "\\u0000", 1]})
    found = json.loads(request.metadata)
    assert found["note"] == "ab"
    assert found["nested"] == {"k": ["", "\\u0000", 1]}


def test_metadata_that_is_not_json_is_named() -> None:
    with pytest.raises(ValueError, match="metadata"):
        requests({}, score=math.nan)
    with pytest.raises(TypeError, match="metadata"):
        requests({}, score=object())


def test_a_put_larger_than_a_message_sends_channels_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MESSAGE_BYTES", 100_000)
    values = {f"c{number}": bytes(30_000) for number in range(10)}
    *ahead, last = requests(values)
    assert [len(request.channels) for request in ahead] == [3, 3, 3, 1]
    assert not last.channels
    assert last.checkpoint
    assert all(request.ByteSize() <= 100_000 for request in ahead)
    assert not any(request.checkpoint or request.metadata for request in ahead)
    assert {request.checkpoint_id for request in (*ahead, last)} == {last.checkpoint_id}
    assert [item.channel for request in ahead for item in request.channels] == [*values]


def test_writes_larger_than_a_message_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "MESSAGE_BYTES", 100_000)
    sent = write_requests(SERDE, ADDRESS, [("c", bytes(30_000))] * 5, "task", "path")
    assert [[write.index for write in request.writes] for request in sent] == [[0, 1, 2], [3, 4]]


def test_many_small_channels_go_in_several_messages() -> None:
    *ahead, last = requests({f"c{number}": [] for number in range(10_001)})
    assert [len(request.channels) for request in (*ahead, last)] == [10_000, 1, 0]


def test_a_value_larger_than_a_message_is_refused() -> None:
    with pytest.raises(LimitReached, match=r"'big' has \d+ bytes"):
        requests({"big": bytes(MESSAGE_BYTES)})
    with pytest.raises(LimitReached, match="'big'"):
        write_requests(SERDE, ADDRESS, [("big", bytes(MESSAGE_BYTES))], "task", "")


def test_special_channels_have_their_places() -> None:
    writes = [("a", 1), (ERROR, "e"), ("b", 2), (INTERRUPT, "first"), (RESUME, "r"), (INTERRUPT, "last")]
    (request,) = write_requests(SERDE, ADDRESS, writes, "task", "path")
    found = {write.index: (write.channel, SERDE.loads_typed((write.type, write.value))) for write in request.writes}
    assert found == {0: ("a", 1), 2: ("b", 2), -1: (ERROR, "e"), -3: (INTERRUPT, "last"), -4: (RESUME, "r")}
    assert len(request.writes) == 5


@pytest.mark.parametrize("current", [None, "7", f"{7:032}.0.25"])
def test_versions_are_of_the_kind_of_langgraphs_own(current: Any) -> None:
    made, theirs = next_version(current), InMemorySaver().get_next_version(current, None)
    assert len(made.partition(".")[0]) == len(theirs.partition(".")[0]) == 32
    assert int(made.partition(".")[0]) == int(theirs.partition(".")[0])
    assert next_version(made) > made != next_version(current)


@pytest.mark.parametrize("current", [7, 7.25])
def test_after_a_number_comes_a_number(current: float) -> None:
    assert 8 <= next_version(current) < 9
    assert next_version(current) != next_version(current)


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ("x" * 1000, False),
        ("x" * 100_000, True),
        ({"deep": [{"data": bytes(100_000)}]}, True),
        (list(range(100)), False),
        (list(range(100_000)), True),
        ([["x" * 100] for _ in range(1000)], True),
        ([HumanMessage("x" * 100)] * 5, False),
        ([HumanMessage("x"), HumanMessage("x" * 100_000)], True),
        ({1: deque(["x" * 100_000])}, True),
        ([Colour.RED, Colour, is_large], False),
    ],
)
def test_large_values_are_known(value: Any, large: bool) -> None:
    assert is_large([value]) is large


def test_values_that_hold_themselves_have_a_size() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert is_large([loop])


def test_a_saver_with_other_types_allowed_shares_the_connection() -> None:
    saver = AsyncGrpcSaver("127.0.0.1:9", owner_id="alice", serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    other = saver.with_allowlist([("tests.langgraph", "Colour")])
    assert isinstance(other, AsyncGrpcSaver)
    assert other.serde is not saver.serde
    assert other.connection is saver.connection


def test_a_client_without_langgraph_says_so() -> None:
    code = "import sys; sys.modules['langgraph'] = None; import agentstorage; import agentstorage.langgraph"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith('LangGraph is not installed: pip install "agentstorage[langgraph]"\n')
