"""LangGraph's checkpoints as messages of the service, in the rows that LangGraph's own Postgres savers keep them in.

The checkpoint itself is JSON, with those channel values in it that JSON keeps as they are; all others are bytes of the
saver's serializer, each stored once for its channel and version.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import grpc
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from agentstorage import jsontext
from agentstorage.connection import checked_owner
from agentstorage.errors import LimitReached
from agentstorage.langgraph.portable_channels import of_python
from agentstorage.v1 import checkpoints_pb2 as pb

M = TypeVar("M")

#: Bytes of values that one message carries: the service's 64 MiB, less room for ids and names.
MESSAGE_BYTES: Final = 64 * 1024 * 1024 - 64 * 1024
#: What one message has at most, as the service has it.
_CHANNELS, _WRITES, _IDS = 10_000, 100_000, 1000
# The names and ids beside a value, as long as they may be.
_NAMES_BYTES: Final = 2048
# A checkpoint may hold so many characters of texts as JSON; the service takes 16 MiB of JSON, of which one character is 6 bytes at most.
_INLINE_CHARACTERS: Final = 262_144
# Integers of more bits may have more digits than Python's JSON reads.
_INLINE_BITS: Final = 14_000
# From here on Postgres gives a float back without a fraction, as an integer.
_INLINE_FLOAT: Final = 1e16
_PRIMITIVES: Final = (str, int, float, type(None))
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
# What the service calls the bytes of a channel without a value.
_EMPTY: Final = "empty"


class Address(NamedTuple):
    """Which checkpoint a config is about, and whose it is."""

    owner_id: str
    thread_id: str
    checkpoint_ns: str = ""
    checkpoint_id: str = ""

    def fields(self) -> dict[str, Any]:
        """The fields of a request."""
        return self._asdict()


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str, owner_id: str | None) -> RunnableConfig:
    """Make a config; with the owner when it came from a config, so that what LangGraph makes of this one names it too."""
    configurable = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}
    if owner_id is not None:
        configurable["owner_id"] = owner_id
    return {"configurable": configurable}


def owner_of(config: RunnableConfig | None) -> str | None:
    """Give the owner that a config names; None for none. TypeError and ValueError for what is no owner."""
    named = (config or {}).get("configurable", {}).get("owner_id")
    return checked_owner(named, 'config["configurable"]["owner_id"]')


def put_requests(
    serde: SerializerProtocol,
    address: Address,
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    new_versions: ChannelVersions,
) -> list[pb.PutCheckpointRequest]:
    """Make the requests that keep a checkpoint, in their order; more than one only when it is larger than a message."""
    inline, channels = _divided(serde, checkpoint, new_versions)
    text = jsontext.dump({**checkpoint, "channel_values": inline}, "the checkpoint")
    about = _metadata_text(get_serializable_checkpoint_metadata(config, metadata))
    last = pb.PutCheckpointRequest(
        owner_id=address.owner_id,
        thread_id=address.thread_id,
        checkpoint_ns=address.checkpoint_ns,
        checkpoint_id=checkpoint["id"],
        parent_checkpoint_id=address.checkpoint_id,
        checkpoint=text,
        metadata=about,
    )
    size = sum(size for size, _ in channels) + 4 * (len(text) + len(about))
    if size <= MESSAGE_BYTES and len(channels) <= _CHANNELS:
        last.channels.extend(channel for _, channel in channels)
        return [last]
    ahead = [
        pb.PutCheckpointRequest(
            owner_id=address.owner_id,
            thread_id=address.thread_id,
            checkpoint_ns=address.checkpoint_ns,
            checkpoint_id=checkpoint["id"],
            channels=part,
        )
        for part in _packed(channels, _CHANNELS)
    ]
    return [*ahead, last]


def list_request(
    owner_id: str,
    config: RunnableConfig | None,
    filter: dict[str, Any] | None,
    before: RunnableConfig | None,
    limit: int | None,
) -> tuple[pb.ListCheckpointsRequest | None, str | None]:
    """Make the request of a list, None for an empty one, and give the owner where the config names it."""
    request = pb.ListCheckpointsRequest(owner_id=owner_id, limit=limit)
    configurable = config["configurable"] if config else {}
    # No thread is named by an empty text; whoever names none means all of them.
    thread_id = configurable.get("thread_id")
    request.thread_id = "" if thread_id is None else str(thread_id)
    is_nowhere = thread_id is not None and not request.thread_id
    if (checkpoint_ns := configurable.get("checkpoint_ns")) is not None:
        request.checkpoint_ns = checkpoint_ns
    request.checkpoint_id = configurable.get("checkpoint_id") or ""
    if filter:
        request.metadata = jsontext.dump(filter, "filter")
    if before:
        request.before = before["configurable"].get("checkpoint_id") or ""
    return None if is_nowhere or limit == 0 else request, configurable.get("owner_id")


def id_parts(ids: Sequence[str], name: str) -> Iterator[list[str]]:
    """Divide ids into as many as the service takes at once."""
    if isinstance(ids, str):
        raise TypeError(f"{name} must be a sequence of ids, not one id")
    for start in range(0, len(ids), _IDS):
        yield [str(one) for one in ids[start : start + _IDS]]


def write_requests(
    serde: SerializerProtocol, address: Address, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
) -> list[pb.PutWritesRequest]:
    """Make the requests that keep what a task wrote; more than one only when it is larger than a message."""
    made: dict[int, tuple[int, pb.PendingWrite]] = {}
    for place, (channel, value) in enumerate(writes):
        index = WRITES_IDX_MAP.get(channel, place)
        kind, data = serde.dumps_typed(value)
        # Of two writes to one special channel the later counts.
        made[index] = (
            _measured(channel, data),
            pb.PendingWrite(
                task_id=task_id, task_path=task_path, index=index, channel=channel, type=kind, value=bytes(data)
            ),
        )
    return [pb.PutWritesRequest(**address.fields(), writes=part) for part in _packed(made.values(), _WRITES)]


def _divided(
    serde: SerializerProtocol, checkpoint: Checkpoint, new_versions: ChannelVersions
) -> tuple[dict[str, Any], list[tuple[int, pb.ChannelValue]]]:
    """Divide the channel values into those that go into the JSON and those that are kept as bytes, with their sizes."""
    inline: dict[str, Any] = {}
    channels: list[tuple[int, pb.ChannelValue]] = []
    # Any other serializer may be there to keep values from being read.
    is_plain = type(serde).dumps_typed is JsonPlusSerializer.dumps_typed
    room = _INLINE_CHARACTERS
    for channel, value in checkpoint["channel_values"].items():
        is_primitive = isinstance(value, _PRIMITIVES)
        if is_primitive and is_plain and _keeps(value, room):
            inline[channel] = value
            if isinstance(value, str):
                room -= len(value)
            continue
        if isinstance(value, _DeltaSnapshot):
            # LangGraph's Postgres savers mark a snapshot so.
            inline[channel] = True
        version = new_versions.get(channel)
        if version is None and is_primitive:
            # What wrote this version may have kept it as JSON.
            version = checkpoint["channel_versions"].get(channel)
        if version is not None:
            kind, data = serde.dumps_typed(value)
            made = pb.ChannelValue(channel=channel, version=str(version), type=kind, value=bytes(data))
            channels.append((_measured(channel, data), made))
    return inline, channels


def sent_values(checkpoint: Checkpoint, new_versions: ChannelVersions) -> list[Any]:
    """Give the channel values that go with a put: those with new versions, and those that may be part of the checkpoint's JSON."""
    return [
        value
        for channel, value in checkpoint["channel_values"].items()
        if channel in new_versions or isinstance(value, _PRIMITIVES)
    ]


def _keeps(value: Any, room: int) -> bool:
    """Whether a value comes back from JSON, and from Postgres' numbers and texts, as what it is."""
    kind = type(value)
    if kind is str:
        if len(value) > room or "\0" in value:
            return False
        try:
            return value.isascii() or bool(value.encode())
        except UnicodeEncodeError:
            return False
    if kind is int:
        return bool(value.bit_length() <= _INLINE_BITS)
    if kind is float:
        return -_INLINE_FLOAT < value < _INLINE_FLOAT and (value != 0 or math.copysign(1, value) > 0)
    return kind is bool or value is None


def _metadata_text(metadata: Mapping[str, Any]) -> str:
    text = jsontext.dump(metadata, "the metadata of the checkpoint")
    if "\\u0000" in text:
        text = jsontext.dump(_without_nul(metadata), "the metadata of the checkpoint")
    return text


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, Mapping):
        return {_without_nul(key): _without_nul(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nul(entry) for entry in value]
    return value


def _measured(channel: str, data: bytes) -> int:
    """Give the size of a value in a message; LimitReached for one that no message carries."""
    size = len(data) + _NAMES_BYTES
    if size > MESSAGE_BYTES:
        raise LimitReached(
            f"the value of channel {channel!r} has {len(data)} bytes, more than the {MESSAGE_BYTES - _NAMES_BYTES} that one message "
            "carries: keep large data elsewhere and store where it is",
            reason="",
        )
    return size


def _packed(items: Iterable[tuple[int, M]], most: int) -> Iterator[list[M]]:
    """Divide what is sent, given with its sizes, into messages."""
    part: list[M] = []
    room = MESSAGE_BYTES
    for size, item in items:
        if part and (size > room or len(part) == most):
            yield part
            part, room = [], MESSAGE_BYTES
        part.append(item)
        room -= size
    if part:
        yield part


class Row:
    """A checkpoint of the service, taken out of its message at once: each look at bytes in a message copies them."""

    __slots__ = ("_channels", "_message", "_sends", "_writes", "size")

    def __init__(self, message: pb.Checkpoint) -> None:
        self._message = message
        self._channels = [(value.channel, value.type, value.value) for value in message.channels]
        self._writes = [(write.task_id, write.channel, write.type, write.value) for write in message.writes]
        self._sends = [(write.type, write.value) for write in message.parent_sends]
        #: Bytes of the values.
        self.size = sum(len(entry[-1]) for entries in (self._channels, self._writes, self._sends) for entry in entries)

    def loaded(self, serde: SerializerProtocol, owner_id: str | None) -> CheckpointTuple:
        """Make LangGraph's tuple of it, whose configs name the owner when one is given."""
        message = self._message
        thread_id, checkpoint_ns = message.thread_id, message.checkpoint_ns
        checkpoint: Any = jsontext.load(message.checkpoint, {})
        values = checkpoint["channel_values"] = {**(checkpoint.get("channel_values") or {})}
        for channel, kind, data in self._channels:
            if kind != _EMPTY:
                values[channel] = of_python(channel, serde.loads_typed((kind, data)))
        if self._sends:
            # Up to format 3 what a step sent was kept with the parent's writes; now it is the value of a channel.
            values[TASKS] = [serde.loads_typed(send) for send in self._sends]
            versions = checkpoint["channel_versions"]
            versions[TASKS] = max(versions.values()) if versions else next_version(None)
        parent = message.parent_checkpoint_id
        return CheckpointTuple(
            config_of(thread_id, checkpoint_ns, message.checkpoint_id, owner_id),
            checkpoint,
            jsontext.load(message.metadata, {}),
            config_of(thread_id, checkpoint_ns, parent, owner_id) if parent else None,
            [
                (task_id, channel, of_python(channel, serde.loads_typed((kind, data))))
                for task_id, channel, kind, data in self._writes
            ],
        )


async def next_row(call: Any) -> Row | None:
    """Read a checkpoint of a list, put together from its parts; None at the end."""
    message = await call.read()
    if message is _EOF:
        return None
    checkpoint = message.checkpoint
    while message.more:
        message = await call.read()
        checkpoint.MergeFrom(message.checkpoint)
    return Row(checkpoint)


class Histories:
    """What delta channels are built from, taken out of its message at once."""

    __slots__ = ("_channels", "size")

    def __init__(self, message: pb.GetDeltaChannelHistoryResponse) -> None:
        self._channels = []
        self.size = 0
        for history in message.channels:
            writes = [(write.task_id, write.channel, write.type, write.value) for write in history.writes]
            seed: tuple[str, bytes] | str | None = None
            if history.HasField("value"):
                seed = (history.value.type, history.value.value)
                self.size += len(seed[1])
            elif history.HasField("json"):
                seed = history.json
            self._channels.append((history.channel, seed, writes))
            self.size += sum(len(write[-1]) for write in writes)

    def loaded(self, serde: SerializerProtocol) -> dict[str, DeltaChannelHistory]:
        """Make LangGraph's histories of them, by channel."""
        made: dict[str, DeltaChannelHistory] = {}
        for channel, seed, writes in self._channels:
            history = made[channel] = DeltaChannelHistory(
                writes=[(task_id, name, serde.loads_typed((kind, data))) for task_id, name, kind, data in writes]
            )
            if isinstance(seed, str):
                history["seed"] = jsontext.load(seed, None)
            elif seed is not None:
                history["seed"] = serde.loads_typed(seed)
        return made


def next_version(current: str | float | None) -> Any:
    """Give the version after another: a counter that sorts as text, and what tells two writers' versions apart.

    After a number, as LangGraph.js has them, comes a number: LangGraph compares the versions of a thread's channels.
    """
    if isinstance(current, int | float):
        return int(current) + 1 + random.random()  # noqa: S311 - keeps no secret
    count = 0 if current is None else int(current.partition(".")[0])
    return f"{count + 1:032}.{random.random():016}"  # noqa: S311 - keeps no secret
