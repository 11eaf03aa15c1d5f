"""Checkpoints as LangGraph makes them, shorter: how tests write and read them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentstorage.v1 import checkpoints_pb2 as pb
from tests.conformance.rows import scoped
from tests.service import Api


def document(versions: Mapping[str, Any] | None = None, **more: Any) -> str:
    """A checkpoint's JSON, with these versions of channels."""
    return json.dumps({"v": 4, "channel_values": {}, "channel_versions": dict(versions or {}), **more})


def value(channel: str, version: str, data: bytes = b"", type_: str = "msgpack") -> dict[str, Any]:
    """The value of a channel."""
    return {"channel": channel, "version": version, "type": type_, "value": base64.b64encode(data).decode()}


def write(task: str, index: int, channel: str = "c", data: bytes = b"", **more: Any) -> dict[str, Any]:
    """A write of a task."""
    made = {"task_id": task, "index": index, "channel": channel, "type": "msgpack"}
    return made | {"value": base64.b64encode(data).decode()} | more


class Thread:
    """The checkpoints of one thread, through the API, for an owner or, for None, without one."""

    def __init__(self, api: Api, owner: str | None, thread_id: str) -> None:
        self.api = api
        self.owner = owner
        self.id = thread_id

    def of(self, owner: str | None) -> Thread:
        """The same thread for another owner."""
        return Thread(self.api, owner, self.id)

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method on the thread."""
        return await self.api.call(method, **scoped(self.owner), thread_id=self.id, **fields)

    async def put(self, id: str, parent: str = "", *, ns: str = "", checkpoint: str | None = None, **more: Any) -> None:
        """Write a checkpoint."""
        text = document() if checkpoint is None else checkpoint
        await self.call(
            "PutCheckpoint",
            checkpoint_id=id,
            parent_checkpoint_id=parent,
            checkpoint_ns=ns,
            checkpoint=text,
            **more,
        )

    async def put_writes(self, id: str, *writes: Mapping[str, Any], ns: str = "") -> None:
        """Keep writes for a checkpoint."""
        await self.call("PutWrites", checkpoint_id=id, checkpoint_ns=ns, writes=list(writes))

    async def get(self, id: str = "", ns: str = "") -> pb.Checkpoint:
        """Read a checkpoint, or the newest."""
        found: pb.Checkpoint = (await self.call("GetCheckpoint", checkpoint_id=id, checkpoint_ns=ns)).checkpoint
        return found

    async def listed(self, **fields: Any) -> list[pb.Checkpoint]:
        """List checkpoints, those in parts put together."""
        return joined(await self.api.stream("ListCheckpoints", **scoped(self.owner), thread_id=self.id, **fields))

    async def ids(self, **fields: Any) -> list[str]:
        """The ids of a listing."""
        return [checkpoint.checkpoint_id for checkpoint in await self.listed(**fields)]

    async def history(self, *channels: str, id: str = "", ns: str = "") -> Sequence[pb.DeltaChannelHistory]:
        """Read what delta channels are built from."""
        fields: dict[str, Any] = {"checkpoint_id": id, "checkpoint_ns": ns, "channels": channels}
        found: Sequence[pb.DeltaChannelHistory] = (await self.call("GetDeltaChannelHistory", **fields)).channels
        return found


def joined(messages: Sequence[pb.ListCheckpointsResponse]) -> list[pb.Checkpoint]:
    """The checkpoints of a stream."""
    found: list[pb.Checkpoint] = []
    is_part = False
    for message in messages:
        if is_part:
            found[-1].MergeFrom(message.checkpoint)
        else:
            found.append(message.checkpoint)
        is_part = message.more
    assert not is_part
    return found


def channels_of(checkpoint: pb.Checkpoint) -> dict[str, bytes]:
    """The values of channels by their names."""
    return {item.channel: item.value for item in checkpoint.channels}


def writes_of(writes: Sequence[pb.PendingWrite]) -> list[tuple[str, str, int, str, bytes]]:
    """Writes as tuples, in their order."""
    return [(item.task_path, item.task_id, item.index, item.channel, item.value) for item in writes]
