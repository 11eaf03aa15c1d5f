"""The tables: which message each row is, and how a field becomes a column and back.

A column states how it is stored (``stored``), how a row reads it (``read``) and how a value of the message is bound (``write``).
Column names come from here alone and are constants, so that no text of a request ever becomes part of a statement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message

from agentstorage.v1 import assistants_pb2, crons_pb2, owner_pb2, runs_pb2, store_pb2, threads_pb2

M = TypeVar("M", bound=Message)

# An optional text orders rows by this many characters, so that a long one fits into the index.
SORTED_CHARACTERS = 255


def words(enum: EnumTypeWrapper, prefix: str) -> dict[int, str]:
    """The numbers of an enum with the lower-case words that stand for them in the database."""
    return {number: name.removeprefix(prefix).lower() for name, number in enum.items() if number}


THREAD_STATUS = words(threads_pb2.ThreadStatus, "THREAD_STATUS_")
THREAD_VISIBILITY = words(threads_pb2.ThreadVisibility, "THREAD_VISIBILITY_")
RUN_STATUS = words(runs_pb2.RunStatus, "RUN_STATUS_")
THREAD_TTL_STRATEGY = words(threads_pb2.ThreadTtlStrategy, "THREAD_TTL_STRATEGY_")
MULTITASK_STRATEGY = words(runs_pb2.MultitaskStrategy, "MULTITASK_STRATEGY_")
ON_RUN_COMPLETED = words(crons_pb2.OnRunCompleted, "ON_RUN_COMPLETED_")
CANCEL_ACTION = words(runs_pb2.CancelAction, "CANCEL_ACTION_")
MISFIRE_POLICY = words(crons_pb2.MisfirePolicy, "MISFIRE_POLICY_")


@dataclass(frozen=True)
class Column:
    """A field of a message as a column.

    ``read`` and ``write`` are SQL with ``{}`` in the place of the column, or of the bound value.
    """

    field: str
    name: str
    read: str = "{}"
    write: str = "{}"
    dump: Callable[[Any], Any] = lambda value: value
    # For a field that is a message: makes it of what is read.
    load: Callable[[Any], Message] | None = None
    # What sorts in place of an absent value, as SQL, and whether it is a time.
    absent: str = ""
    is_time: bool = False
    # Whether the stored value is a text, so that rows are ordered by code point and not by a language.
    is_text: bool = False
    # For memory: whether the text is JSON, and the words of an enum.
    is_json: bool = False
    words: Mapping[int, str] = dataclasses.field(default_factory=dict)
    default: str = ""
    # Whether named operations alone set it, so that no insert does.
    is_computed: bool = False

    @property
    def stored(self) -> str:
        """The column, quoted."""
        return f'"{self.name}"'

    @cached_property
    def select(self) -> str:
        """The column as a row reads it, under the field's name."""
        return f'{self.read.format(self.stored)} AS "{self.field}"'

    def cursor(self, value: Any, descending: bool) -> Any:
        """A value of the field as a bound that rows are ordered after."""
        if self.words:
            return self.words.get(value, "")
        if self.is_time:
            return (self.absent or "infinity") if value is None else self.dump(value)
        return value[:SORTED_CHARACTERS] if self.absent else self.dump(value)

    @cached_property
    def sort_key(self) -> str:
        """What rows are ordered by; exactly the expression of the index."""
        if self.is_time:
            return f"coalesce({self.stored}, '{self.absent}'::timestamptz)" if self.absent else self.stored
        if self.words:
            # Words that this version does not know, in rows of another's, are all the same: they come before every other.
            known = ",".join(self.words.values())
            return (
                f"(CASE WHEN {self.stored} = ANY ('{{{known}}}'::text[]) THEN {self.stored} ELSE '' END) COLLATE \"C\""
            )
        if self.absent:
            return f'"left"(coalesce({self.stored}, \'\'), {SORTED_CHARACTERS}) COLLATE "C"'
        return f'{self.stored} COLLATE "C"' if self.is_text else self.stored


def _plain(name: str, column: str = "") -> Column:
    return Column(name, column or name)


def _text(name: str, column: str = "") -> Column:
    return Column(name, column or name, is_text=True)


def _optional_text(name: str) -> Column:
    """A text whose empty form is stored as NULL; its first 255 characters order rows."""
    return Column(name, name, read="coalesce({}, '')", dump=lambda value: value or None, absent="''", is_text=True)


def _json(name: str, default: str = "{}") -> Column:
    return Column(name, name, write="{}::jsonb", dump=lambda value: value or default, is_json=True, default=default)


def written(value: str) -> str:
    """A value of ``values`` or ``interrupts`` as a term that tells the triggers, before they see the row, that the service writes it.

    They would take a string that holds a document for a runtime's. The setting ends with the transaction, so that it works behind any
    pooler.
    """
    return f"CASE WHEN set_config('storage_service.writer', 'service', true) IS NOT NULL THEN {value} END"


def _any_json(name: str, default: str = "{}") -> Column:
    """JSON in which a string may be meant, whatever it looks like."""
    return dataclasses.replace(_json(name, default), write=written("{}::jsonb"))


def _optional_json(name: str) -> Column:
    """JSON for which "", null and NULL mean the same: none."""
    return Column(
        name,
        name,
        read="nullif({}, 'null'::jsonb)",
        write="nullif({}::jsonb, 'null'::jsonb)",
        dump=lambda value: value or None,
        is_json=True,
        default="null",
    )


def _enum(name: str, known: Mapping[int, str]) -> Column:
    cases = " ".join(f"WHEN '{word}' THEN {number}" for number, word in known.items())
    return Column(
        name, name, read=f"CASE {{}} {cases} ELSE 0 END", dump=lambda value: known[value], words=known, is_text=True
    )


def _time(name: str, absent: str = "") -> Column:
    return Column(name, name, write="{}::timestamptz", dump=_dump_time, absent=absent, is_time=True)


def _ttl(name: str) -> Column:
    """A ThreadTtl as a row of minutes and strategy; NULL for none."""
    cases = " ".join(f"WHEN '{word}' THEN {number}" for number, word in THREAD_TTL_STRATEGY.items())
    return Column(
        name,
        name,
        read=f"CASE WHEN ({{0}}).minutes > 0 THEN ROW(({{0}}).minutes, CASE ({{0}}).strategy {cases} ELSE 0 END) END",
        write="{}::langgraph_server.thread_ttl",
        dump=_dump_ttl,
        load=lambda pair: threads_pb2.ThreadTtl(minutes=pair[0], strategy=pair[1]),
    )


def _computed(column: Column) -> Column:
    """A column that named operations alone set."""
    return dataclasses.replace(column, is_computed=True)


def _dump_ttl(ttl: threads_pb2.ThreadTtl | None) -> str | None:
    return f"({ttl.minutes!r},{THREAD_TTL_STRATEGY[ttl.strategy]})" if ttl is not None and ttl.minutes else None


def _dump_time(value: Any) -> str | None:
    return None if value is None else value.ToJsonString()


@dataclass(frozen=True, eq=False)
class Table(Generic[M]):
    """A table whose rows are messages of one type."""

    message: type[M]
    resource: str
    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    # The condition that every row must fulfil to exist, as SQL; "" for none.
    alive: str = ""
    # The condition that an id is taken though no row has it, as SQL with ``{}`` in the place of the id; "" for none.
    taken: str = ""
    owner: str = "owner_id"

    @property
    def id(self) -> str:
        """The field of the id."""
        return self.key[-1]

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields in the order of the columns."""
        return tuple(self.columns)

    @cached_property
    def loads(self) -> dict[str, Callable[[Any], Message]]:
        """What makes messages of fields, by the field."""
        return {name: column.load for name, column in self.columns.items() if column.load is not None}

    @cached_property
    def select(self) -> str:
        """All columns as a row reads them."""
        return self.select_only(None)

    def select_only(self, fields: frozenset[str] | None) -> str:
        """The columns of these fields, or all, as a row reads them."""
        return ", ".join(column.select for name, column in self.columns.items() if fields is None or name in fields)


def _table(
    message: type[M], resource: str, name: str, key: tuple[str, ...], columns: list[Column], **more: Any
) -> Table[M]:
    return Table(
        message, resource, f'"langgraph_server"."{name}"', key, {column.field: column for column in columns}, **more
    )


_ASSISTANT = [
    _text("graph_id"),
    _optional_text("name"),
    _optional_text("description"),
    _json("config"),
    _json("context"),
    _json("metadata"),
    _plain("version"),
    _time("created_at"),
    _time("updated_at"),
]
ASSISTANTS = _table(
    assistants_pb2.Assistant, "assistant", "assistants", ("assistant_id",), [_text("assistant_id", "id"), *_ASSISTANT]
)
ASSISTANT_VERSIONS = _table(
    assistants_pb2.Assistant,
    "assistant version",
    "assistant_versions",
    ("assistant_id", "version"),
    [_text("assistant_id"), *_ASSISTANT],
)
THREADS = _table(
    threads_pb2.Thread,
    "thread",
    "threads",
    ("thread_id",),
    [
        _text("thread_id", "id"),
        _json("metadata"),
        _json("config"),
        _enum("status", THREAD_STATUS),
        _any_json("values"),
        _any_json("interrupts"),
        _optional_json("error"),
        _enum("visibility", THREAD_VISIBILITY),
        _time("created_at"),
        _time("updated_at"),
        _time("state_updated_at", absent="-infinity"),
        _ttl("ttl"),
        # Set by a trigger, with every change of updated_at.
        _time("expires_at"),
    ],
    # Checkpoints without a thread are somebody's: whoever made a thread of that id would own them. An operator gives them an owner.
    taken="EXISTS (SELECT FROM public.checkpoints WHERE thread_id = {})",
)
THREAD_STATES = _table(
    threads_pb2.ThreadState,
    "thread state",
    "thread_states",
    ("thread_id", "checkpoint_id"),
    [
        _text("thread_id"),
        _text("checkpoint_id"),
        _any_json("values"),
        Column("next", "next", write="{}::text[]", dump=list),
        _json("tasks", "[]"),
        _json("metadata"),
        _any_json("interrupts", "[]"),
        _optional_json("parent_checkpoint"),
        _time("created_at"),
        _plain("sequence", "id"),
    ],
)
RUNS = _table(
    runs_pb2.Run,
    "run",
    "runs",
    ("run_id",),
    [
        _text("run_id", "id"),
        _optional_text("thread_id"),
        _optional_text("assistant_id"),
        _enum("status", RUN_STATUS),
        _json("metadata"),
        _json("kwargs"),
        _enum("multitask_strategy", MULTITASK_STRATEGY),
        _optional_json("error"),
        _time("created_at"),
        _time("updated_at"),
        _time("finished_at"),
        _computed(_plain("attempt")),
        _time("run_after"),
        _computed(
            Column(
                "lease",
                "worker_id",
                read="CASE WHEN {0} IS NOT NULL THEN ROW({0}, lease_expires_at) END",
                load=lambda pair: runs_pb2.RunLease(worker_id=pair[0], expires_at=pair[1]),
            )
        ),
        _computed(_enum("cancel", CANCEL_ACTION)),
        _computed(_plain("last_sequence")),
        _optional_text("cron_id"),
        _time("cron_tick"),
    ],
)
RUN_EVENTS = _table(
    runs_pb2.RunEvent,
    "run event",
    "run_events",
    ("run_id", "sequence"),
    [
        _text("run_id"),
        _plain("sequence"),
        _plain("position"),
        _text("type"),
        _plain("data"),
        _plain("attempt"),
        _time("created_at"),
        dataclasses.replace(_enum("end", RUN_STATUS), name="end_status"),
    ],
)
ITEMS = _table(
    store_pb2.Item,
    "item",
    "store_items",
    ("namespace", "key"),
    [
        Column("namespace", "namespace", read="string_to_array({}, '.')", dump=".".join, is_text=True),
        _text("key"),
        _json("value"),
        _json("metadata"),
        _plain("version"),
        _time("created_at"),
        _time("updated_at"),
        _time("expires_at"),
        Column("ttl_minutes", "ttl_minutes", dump=lambda value: value or None),
    ],
    alive="(expires_at IS NULL OR expires_at > now())",
)
CRONS = _table(
    crons_pb2.Cron,
    "cron",
    "crons",
    ("cron_id",),
    [
        _text("cron_id", "id"),
        _optional_text("assistant_id"),
        _optional_text("thread_id"),
        _text("schedule"),
        _text("timezone"),
        _plain("enabled"),
        _time("end_time", absent="infinity"),
        _optional_text("user_id"),
        _json("payload"),
        _json("metadata"),
        _time("next_run_date", absent="infinity"),
        _enum("on_run_completed", ON_RUN_COMPLETED),
        _enum("misfire_policy", MISFIRE_POLICY),
        _time("created_at"),
        _time("updated_at"),
    ],
)
# Items that adoption found in two spellings of one namespace: the older ones, kept aside.
DISPLACED_ITEMS = _table(
    owner_pb2.DisplacedItem,
    "displaced item",
    "store_items_displaced",
    ("id",),
    [
        _plain("id"),
        _text("namespace"),
        _text("key"),
        _json("value"),
        _json("metadata"),
        _time("created_at"),
        _time("updated_at"),
        _time("displaced_at"),
        _text("reason"),
    ],
)


def _langgraph(message: type[M], name: str, key: tuple[str, ...], *others: str) -> Table[M]:
    """A table of LangGraph's, which the service reads and copies as it is; see its migrations up to langgraph-checkpoint-postgres 3.2."""
    columns = [_plain(field) if field == "idx" else _text(field) for field in key]
    return Table(
        message,
        name,
        f'"public"."{name}"',
        key,
        {column.field: column for column in (*columns, *(_plain(field) for field in others))},
    )


CHECKPOINTS = _langgraph(
    owner_pb2.ExportedCheckpoint,
    "checkpoints",
    ("thread_id", "checkpoint_ns", "checkpoint_id"),
    "parent_checkpoint_id",
    "type",
    "checkpoint",
    "metadata",
)
CHECKPOINT_BLOBS = _langgraph(
    owner_pb2.ExportedCheckpointBlob,
    "checkpoint_blobs",
    ("thread_id", "checkpoint_ns", "channel", "version"),
    "type",
    "blob",
)
CHECKPOINT_WRITES = _langgraph(
    owner_pb2.ExportedCheckpointWrite,
    "checkpoint_writes",
    ("thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx"),
    "channel",
    "type",
    "blob",
    "task_path",
)
LANGGRAPH_TABLES: tuple[Table[Any], ...] = (CHECKPOINTS, CHECKPOINT_BLOBS, CHECKPOINT_WRITES)
