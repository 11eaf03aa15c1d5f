"""Checkpoints for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import count
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.base.id import uuid6

_NUMBERS = count(1)


def config(thread: str, checkpoint_id: str | None = None, ns: str = "", **more: Any) -> RunnableConfig:
    """The config of a thread, or of a checkpoint in it."""
    configurable = {"thread_id": thread, "checkpoint_ns": ns, **more}
    if checkpoint_id is not None:
        configurable["checkpoint_id"] = checkpoint_id
    return {"configurable": configurable}


def checkpoint(
    values: dict[str, Any], versions: ChannelVersions | None = None, checkpoint_id: str | None = None
) -> Checkpoint:
    """A checkpoint with values, each in a version of its own unless told otherwise."""
    return Checkpoint(
        v=4,
        id=checkpoint_id or str(uuid6()),
        ts=datetime.now(UTC).isoformat(),
        channel_values=values,
        channel_versions={channel: f"{next(_NUMBERS):032}.5" for channel in values} if versions is None else versions,
        versions_seen={},
        updated_channels=None,
    )


def metadata(step: int = 0, **more: Any) -> CheckpointMetadata:
    """Metadata of a step."""
    return {"source": "loop", "step": step, "parents": {}, **more}  # type: ignore[typeddict-item]  # it may hold anything


async def put(
    saver: BaseCheckpointSaver[Any],
    thread: str,
    values: dict[str, Any],
    parent: RunnableConfig | None = None,
    *,
    ns: str = "",
    **about: Any,
) -> RunnableConfig:
    """Keep a checkpoint whose channels are all new, after another; give its config."""
    made = checkpoint(values)
    before = parent or config(thread, ns=ns)
    return await saver.aput(before, made, metadata(**about), made["channel_versions"])


def id_of(where: RunnableConfig) -> str:
    """The checkpoint id of a config."""
    found: str = where["configurable"]["checkpoint_id"]
    return found
