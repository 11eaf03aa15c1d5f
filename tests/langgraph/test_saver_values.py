"""What is put comes back as it was, through real servers, inline or not."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import threading
import uuid
from collections import deque
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send

from agentstorage.errors import LimitReached
from agentstorage.langgraph import AsyncGrpcSaver
from agentstorage.langgraph.checkpoints import MESSAGE_BYTES
from tests.langgraph.checkpoints import checkpoint, config, metadata, put
from tests.langgraph.ciphers import Mask
from tests.service import ServerProcess


class Colour(enum.StrEnum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


VALUES: dict[str, Any] = {
    "none": None,
    "text": "ünïcode \U0001f600",
    "empty": "",
    "number": -(2**63),
    "float": 0.1,
    "whole": 3.0,
    "tiny": 5e-324,
    "large": 1.5e300,
    "sixteen": 1e16,
    "below sixteen": 1e16 - 2,
    "bool": True,
    "nul": "a\0b",
    "enum": Colour.RED,
    "infinity": math.inf,
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"\0\xff"),
    "list": [1, "a", None, {"k": [2.5]}],
    "tuple in list": [[1, 2]],
    "dict": {"a": {"b": 1}, 7: "number"},
    "set": {1, 2},
    "deque": deque([1, 2]),
    "uuid": uuid.UUID(int=7),
    "decimal": Decimal("1.10"),
    "time": datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
    "point": Point(1, 2),
    "messages": [
        HumanMessage("hi", id="1"),
        AIMessage("ho", id="2", tool_calls=[{"name": "t", "args": {}, "id": "c"}]),
    ],
    "send": [Send("node", {"x": 1})],
    "interrupt": [Interrupt(value="why", id="i1")],
    "snapshot": _DeltaSnapshot([1, 2]),
    "back\\slash": ["\\"],
    "quote\"'": ["'\""],
}


async def test_values_keep_value_and_type(saver: AsyncGrpcSaver, thread: str) -> None:
    where = await put(saver, thread, VALUES)
    found = await saver.aget_tuple(where)
    assert found
    values = found.checkpoint["channel_values"]
    assert {*values} == {*VALUES}
    for name, value in VALUES.items():
        assert (values[name], type(values[name])) == (value, type(value)), name
    await saver.aput_writes(where, [*VALUES.items()], "task")
    found = await saver.aget_tuple(where)
    assert found
    assert found.pending_writes == [("task", name, value) for name, value in VALUES.items()]


async def test_values_that_equal_nothing(saver: AsyncGrpcSaver, thread: str) -> None:
    found = await saver.aget_tuple(await put(saver, thread, {"nan": math.nan, "zero": -0.0, "long": 2**200}))
    assert found
    values = found.checkpoint["channel_values"]
    assert math.isnan(values["nan"])
    assert math.copysign(1, values["zero"]) == -1
    assert values["long"] == 2**200


async def test_the_checkpoint_and_its_metadata_are_kept(saver: AsyncGrpcSaver, thread: str) -> None:
    made = checkpoint({"a": [1]}, {"a": "1", "b": "2"})
    made["versions_seen"] = {"node": {"a": "1"}, "__input__": {}}
    made["updated_channels"] = ["a"]
    about = metadata(
        3, parents={"": "p"}, counters_since_delta_snapshot={"c": (1, 2)}, note="x\0y", deep={"k": [1, None]}
    )
    where = config(thread, ns="child:1", thread_ts="t", user="u", flag=True, ratio=0.5, hidden=object())
    where["metadata"] = {"tag": "m", "step": "not this one"}
    after = await saver.aput(where, made, about, {"a": "1"})
    assert after == config(thread, made["id"], "child:1")
    found = await saver.aget_tuple(after)
    assert found
    assert found.checkpoint == made
    assert found.metadata == {
        "source": "loop",
        "step": 3,
        "parents": {"": "p"},
        "counters_since_delta_snapshot": {"c": [1, 2]},
        "note": "xy",
        "deep": {"k": [1, None]},
        "tag": "m",
        "thread_ts": "t",
        "user": "u",
        "flag": True,
        "ratio": 0.5,
    }
    assert (found.config, found.parent_config, found.pending_writes) == (after, None, [])


async def test_channels_that_are_not_new_keep_their_bytes(saver: AsyncGrpcSaver, thread: str) -> None:
    first = checkpoint({"kept": [1], "gone": [2], "odd": math.inf}, {"kept": "1", "gone": "1", "odd": "1"})
    where = await saver.aput(config(thread), first, metadata(), first["channel_versions"])
    second = checkpoint({"kept": [1], "new": [3], "odd": math.inf}, {"kept": "1", "new": "2", "odd": "1"})
    where = await saver.aput(where, second, metadata(1), {"new": "2"})
    found = await saver.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == {"kept": [1], "new": [3], "odd": math.inf}


async def test_a_thread_that_becomes_secret_keeps_its_values(server: ServerProcess, owner: str, thread: str) -> None:
    values = {"text": "plain", "list": [1]}
    async with AsyncGrpcSaver(server.target, owner_id=owner) as plain:
        where = await put(plain, thread, values)
    async with AsyncGrpcSaver(server.target, owner_id=owner, serde=EncryptedSerializer(Mask())) as secret:
        found = await secret.aget_tuple(where)
        assert found
        assert found.checkpoint["channel_values"] == values
        again = checkpoint(values, found.checkpoint["channel_versions"])
        where = await secret.aput(where, again, metadata(1), {})
        found = await secret.aget_tuple(where)
        assert found
        assert found.checkpoint["channel_values"] == values


async def test_channels_of_ten_megabytes(saver: AsyncGrpcSaver, thread: str) -> None:
    values = {"text": "é" * 5_000_000, "data": bytes(10_000_000), "list": ["x" * 1000] * 10_000}
    where = await put(saver, thread, values)
    await saver.aput_writes(where, [("data", values["data"])], "task")
    found = await saver.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == values
    assert found.pending_writes == [("task", "data", values["data"])]


async def test_a_checkpoint_larger_than_a_message(saver: AsyncGrpcSaver, thread: str) -> None:
    values = {f"c{number}": bytes([number]) * (20 * 1024 * 1024) for number in range(4)}
    where = await put(saver, thread, {**values, "small": 1})
    found = await saver.aget_tuple(where)
    assert found
    assert found.checkpoint["channel_values"] == {**values, "small": 1}
    newest = await saver.aget_tuple(config(thread))
    assert newest
    assert newest.checkpoint["id"] == found.checkpoint["id"]
    listed = [item.checkpoint["channel_values"] async for item in saver.alist(config(thread))]
    assert listed == [found.checkpoint["channel_values"]]


async def test_a_value_larger_than_a_message_is_refused(saver: AsyncGrpcSaver, thread: str) -> None:
    with pytest.raises(LimitReached, match="'big' has"):
        await put(saver, thread, {"big": bytes(MESSAGE_BYTES)})
    assert await saver.aget_tuple(config(thread)) is None
    almost = bytes(MESSAGE_BYTES - 2048)
    found = await saver.aget_tuple(await put(saver, thread, {"big": almost}))
    assert found
    assert found.checkpoint["channel_values"] == {"big": almost}


async def test_histories_larger_than_a_message(saver: AsyncGrpcSaver, thread: str) -> None:
    where = await put(saver, thread, {"log": _DeltaSnapshot([])})
    expected = []
    for step in range(4):
        value = bytes([step]) * (20 * 1024 * 1024)
        await saver.aput_writes(where, [("log", value), ("other", step)], f"t{step}")
        expected.append((f"t{step}", "log", value))
        where = await put(saver, thread, {}, where)
    history: Any = await saver.aget_delta_channel_history(config=where, channels=["log"])
    assert history == {"log": {"writes": expected, "seed": _DeltaSnapshot([])}}


class Watched(JsonPlusSerializer):
    """Tells in which threads it worked."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self.threads.append(threading.get_ident())
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.threads.append(threading.get_ident())
        return super().loads_typed(data)


@pytest.mark.parametrize(("size", "here"), [(1000, True), (200_000, False)])
async def test_large_values_keep_no_loop_waiting(
    server: ServerProcess, owner: str, thread: str, size: int, here: bool
) -> None:
    serde = Watched()
    async with AsyncGrpcSaver(server.target, owner_id=owner, serde=serde) as saver:
        first = await put(saver, thread, {"log": ["x" * size]})
        await saver.aput_writes(first, [("log", ["x" * size])], "t")
        await saver.aget_tuple(first)
        assert len([item async for item in saver.alist(config(thread))]) == 1
        second = await put(saver, thread, {}, first)
        await saver.aget_delta_channel_history(config=second, channels=["log"])
        assert len(serde.threads) == 8
        # A text goes again with each checkpoint, also when it is not new.
        made = checkpoint({"text": "x" * size, "number": 1})
        third = await saver.aput(second, made, metadata(), made["channel_versions"])
        await saver.aput(third, {**made, "id": "z"}, metadata(), {"number": made["channel_versions"]["number"]})
    assert len(serde.threads) == 12
    assert {where == threading.get_ident() for where in serde.threads} == {here}
