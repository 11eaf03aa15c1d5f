"""Checkpoints whose ids say when they were made, and all that a thread holds of them."""

from __future__ import annotations

import random
import time
from typing import Any

from storage_service.store.retention import id_before
from tests.conformance.checkpoints import Thread, document, value, write

DAY = 86400.0


def id_at(days: float, clock: int = 0) -> str:
    """The id of a checkpoint that was made so many days ago."""
    return f"{id_before(time.time() - days * DAY)}-{0x8000 | clock & 0x3FFF:04x}-0000{random.getrandbits(32):08x}"


async def put(thread: Thread, id: str, parent: str = "", *, ns: str = "", **versions: str) -> None:
    """A checkpoint whose channels have these versions, with the values that are not there yet, and a write."""
    channels = [value(name, version, f"{name}{version}".encode()) for name, version in versions.items()]
    await thread.put(id, parent, ns=ns, checkpoint=document(versions), channels=channels)
    await thread.put_writes(id, write("t", 0, data=id.encode()), ns=ns)


async def rows(thread: Thread) -> dict[str, list[Any]]:
    """What a thread holds: its checkpoints with their parents, its values and its writes, each by what names it."""
    found: dict[str, list[Any]] = {"checkpoints": [], "blobs": [], "writes": []}
    for part in await thread.api.stream("ExportOwner", owner_id=thread.owner):
        for row in part.checkpoints:
            if row.thread_id == thread.id:
                found["checkpoints"].append((row.checkpoint_ns, row.checkpoint_id, row.parent_checkpoint_id))
        for row in part.checkpoint_blobs:
            if row.thread_id == thread.id:
                found["blobs"].append((row.checkpoint_ns, row.channel, row.version))
        for row in part.checkpoint_writes:
            if row.thread_id == thread.id:
                found["writes"].append((row.checkpoint_ns, row.checkpoint_id, row.task_id, row.idx))
    return {kind: sorted(those) for kind, those in found.items()}


async def ids(thread: Thread, ns: str = "") -> list[str]:
    """The ids of a namespace, oldest first."""
    return [row[1] for row in (await rows(thread))["checkpoints"] if row[0] == ns]
