"""What the drop-in storage interface returns: plain objects with the attributes of the resources."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage import jsontext
from agentstorage.v1 import assistants_pb2, crons_pb2, runs_pb2, store_pb2, threads_pb2


def words(enum: Any, prefix: str) -> dict[int, str]:
    """Name the numbers of an enum by lower-case words; ``"unknown"`` for the one that says nothing."""
    return {number: name.removeprefix(prefix).lower() if number else "unknown" for name, number in enum.items()}


THREAD_STATUS = words(threads_pb2.ThreadStatus, "THREAD_STATUS_")
THREAD_VISIBILITY = words(threads_pb2.ThreadVisibility, "THREAD_VISIBILITY_")
RUN_STATUS = words(runs_pb2.RunStatus, "RUN_STATUS_")
MULTITASK_STRATEGY = words(runs_pb2.MultitaskStrategy, "MULTITASK_STRATEGY_")
ON_RUN_COMPLETED = words(crons_pb2.OnRunCompleted, "ON_RUN_COMPLETED_")
MISFIRE_POLICY = words(crons_pb2.MisfirePolicy, "MISFIRE_POLICY_")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Row:
    """What all results have in common: they turn into dicts, also by the names that pydantic models have for it."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as a dict that JSON can hold; times are ISO-8601 text with microseconds and ``Z``."""
        values: dict[str, Any] = {}
        for name in _names(type(self)):
            value = getattr(self, name)
            values[name] = self._time_text(value) if isinstance(value, datetime) else value
        return values

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        exclude_none: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """Return the attributes as a dict, as pydantic does; with ``mode="json"`` times are text."""
        values = self.to_dict() if mode == "json" else {name: getattr(self, name) for name in _names(type(self))}
        return {
            name: value
            for name, value in values.items()
            if (include is None or name in include)
            and (exclude is None or name not in exclude)
            and not (exclude_none and value is None)
        }

    def model_dump_json(self, **options: Any) -> str:
        """Return ``model_dump(mode="json")`` as JSON text."""
        return json.dumps(self.model_dump(**{**options, "mode": "json"}), ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def _time_text(time: datetime) -> str:
        return _iso(time)


def _names(row: type[Row]) -> tuple[str, ...]:
    found = _NAMES.get(row)
    if found is None:
        found = _NAMES[row] = tuple(entry.name for entry in fields(row))  # type: ignore[arg-type]  # every Row is a dataclass
    return found


_NAMES: dict[type[Row], tuple[str, ...]] = {}


class AssistantConfig(dict[str, Any]):
    """The configuration of an assistant: a dict that always has ``tags``, ``recursion_limit`` and ``configurable``.

    They are attributes too; what else was stored is kept as it is.
    """

    def __init__(self, stored: dict[str, Any]) -> None:
        super().__init__(stored)
        for name, make in _CONFIG_DEFAULTS.items():
            if self.get(name) is None:
                self[name] = make()

    @property
    def tags(self) -> list[str]:
        """Labels of the runs; ``[]`` by default."""
        tags: list[str] = self["tags"]
        return tags

    @property
    def recursion_limit(self) -> int:
        """The most supersteps of a run; 25 by default."""
        limit: int = self["recursion_limit"]
        return limit

    @property
    def configurable(self) -> dict[str, Any]:
        """Settings of the graph; ``{}`` by default."""
        configurable: dict[str, Any] = self["configurable"]
        return configurable

    def model_dump(self, **_: Any) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)


_CONFIG_DEFAULTS: dict[str, Callable[[], Any]] = {"tags": list, "recursion_limit": lambda: 25, "configurable": dict}


@dataclass(slots=True)
class Assistant(Row):
    """An assistant: a graph with a configuration. ``version`` starts at 1 and each update adds one."""

    assistant_id: str
    graph_id: str
    config: AssistantConfig
    context: dict[str, Any]
    metadata: dict[str, Any]
    name: str | None
    description: str | None
    version: int
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, message: assistants_pb2.Assistant) -> Assistant:
        """Make it from the message of the service."""
        return cls(
            message.assistant_id,
            message.graph_id,
            AssistantConfig(jsontext.load(message.config, {})),
            jsontext.load(message.context, {}),
            jsontext.load(message.metadata, {}),
            message.name or None,
            message.description or None,
            message.version,
            _time(message.created_at),
            _time(message.updated_at),
        )


@dataclass(slots=True)
class Thread(Row):
    """A thread: a conversation with an agent. ``status`` is idle, busy, interrupted or error."""

    thread_id: str
    metadata: dict[str, Any]
    config: dict[str, Any]
    status: str
    values: Any
    interrupts: Any
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, message: threads_pb2.Thread) -> Thread:
        """Make it from the message of the service."""
        return cls(
            message.thread_id,
            jsontext.load(message.metadata, {}),
            jsontext.load(message.config, {}),
            THREAD_STATUS.get(message.status, "unknown"),
            jsontext.load(message.values, {}),
            jsontext.load(message.interrupts, {}),
            _time(message.created_at),
            _time(message.updated_at),
        )


@dataclass(slots=True)
class ThreadState(Row):
    """A snapshot of a thread.

    ``checkpoint`` has thread_id, checkpoint_ns and checkpoint_id (None for a thread without a snapshot); ``created_at``
    is ISO-8601 text; ``parent_checkpoint`` is None for the first snapshot.
    """

    values: Any
    next: list[str]
    tasks: list[Any]
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    created_at: str | None
    parent_checkpoint: dict[str, Any] | None
    interrupts: Any

    @classmethod
    def of(cls, message: threads_pb2.ThreadState) -> ThreadState:
        """Make it from the message of the service."""
        return cls(
            jsontext.load(message.values, {}),
            list(message.next),
            jsontext.load(message.tasks, []),
            {"thread_id": message.thread_id, "checkpoint_ns": "", "checkpoint_id": message.checkpoint_id or None},
            jsontext.load(message.metadata, {}),
            _iso(_time(message.created_at)) if message.HasField("created_at") else None,
            jsontext.load(message.parent_checkpoint, None),
            jsontext.load(message.interrupts, []),
        )


@dataclass(slots=True)
class Run(Row):
    """A run: one execution of an assistant on a thread.

    ``status`` is pending, running, success, error, timeout or interrupted; ``multitask_strategy`` is reject, enqueue,
    interrupt or rollback.
    """

    run_id: str
    thread_id: str
    assistant_id: str
    status: str
    metadata: dict[str, Any]
    kwargs: dict[str, Any]
    multitask_strategy: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, message: runs_pb2.Run) -> Run:
        """Make it from the message of the service."""
        return cls(
            message.run_id,
            message.thread_id,
            message.assistant_id,
            RUN_STATUS.get(message.status, "unknown"),
            jsontext.load(message.metadata, {}),
            jsontext.load(message.kwargs, {}),
            MULTITASK_STRATEGY.get(message.multitask_strategy, "unknown") if message.multitask_strategy else "reject",
            _time(message.created_at),
            _time(message.updated_at),
        )


@dataclass(slots=True)
class Item(Row):
    """An item of the long-term store. ``namespace`` is its labels joined by ``"."``; ``value`` is any JSON value."""

    namespace: str
    key: str
    value: Any
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, message: store_pb2.Item) -> Item:
        """Make it from the message of the service."""
        return cls(
            ".".join(message.namespace),
            message.key,
            jsontext.load(message.value, None),
            jsontext.load(message.metadata, {}),
            _time(message.created_at),
            _time(message.updated_at),
        )

    @staticmethod
    def _time_text(time: datetime) -> str:
        # Items are the one resource whose times the runtimes write with an offset.
        return time.isoformat(timespec="microseconds")


@dataclass(slots=True)
class Cron(Row):
    """A cron: a schedule by which runs are made. ``next_run_date`` is None when it will not fire again."""

    cron_id: str
    assistant_id: str | None
    thread_id: str | None
    end_time: datetime | None
    schedule: str
    user_id: str | None
    payload: dict[str, Any]
    next_run_date: datetime | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    timezone: str = field(default="UTC")
    enabled: bool = field(default=True)
    on_run_completed: str = field(default="delete")
    misfire_policy: str = field(default="coalesce")

    @classmethod
    def of(cls, message: crons_pb2.Cron) -> Cron:
        """Make it from the message of the service."""
        return cls(
            message.cron_id,
            message.assistant_id or None,
            message.thread_id or None,
            _time(message.end_time) if message.HasField("end_time") else None,
            message.schedule,
            message.user_id or None,
            jsontext.load(message.payload, {}),
            _time(message.next_run_date) if message.HasField("next_run_date") else None,
            jsontext.load(message.metadata, {}),
            _time(message.created_at),
            _time(message.updated_at),
            message.timezone or "UTC",
            message.enabled,
            ON_RUN_COMPLETED.get(message.on_run_completed, "unknown") if message.on_run_completed else "delete",
            MISFIRE_POLICY.get(message.misfire_policy, "unknown") if message.misfire_policy else "coalesce",
        )
