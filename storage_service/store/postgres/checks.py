"""What ``storage-service doctor`` looks for in the rows of a database: each check is a query for the ids of the rows it is about."""

from __future__ import annotations

from dataclasses import dataclass

INFO, REPAIR, WARNING, ERROR = "info", "repair", "warning", "error"


@dataclass(frozen=True)
class Check:
    """A query for the ids ("id") of rows that something is to be said about; ``needs`` are the columns without which it cannot run.

    ``when`` is "before" or "after" for a check that makes sense only before the adoption of the rows, or only after it.
    """

    severity: str
    code: str
    text: str
    query: str
    needs: tuple[str, ...]
    when: str = ""
    # Columns that, once they are there, make the check pointless.
    until: tuple[str, ...] = ()


_NAMES = ("assistants", "threads", "runs", "crons")
_ITEM = "namespace || ' / ' || key || ' / ' || owner_id"
DOCUMENTS = {
    "assistants": ("metadata", "config", "context"),
    "threads": ("metadata", "config", "values", "interrupts"),
    "thread_states": ("values", "metadata", "tasks", "interrupts", "parent_checkpoint"),
    "runs": ("metadata", "kwargs"),
    "store_items": ("metadata",),
    "crons": ("metadata", "payload"),
}
# The documents that clients may set to any JSON value, a string too. What a client sent stays as it is, whatever it looks like, and apart
# from the snapshots nothing in a row tells who wrote it.
_ANY_VALUE = ("values", "interrupts")
_TIMES = {
    "assistants": ("created_at", "updated_at"),
    "threads": ("created_at", "updated_at"),
    "thread_states": ("created_at",),
    "runs": ("created_at", "updated_at"),
    "store_items": ("created_at", "updated_at"),
    "crons": ("created_at", "updated_at", "next_run_date", "end_time"),
}
_STATUSES = {
    "threads": ("idle", "busy", "interrupted", "error"),
    "runs": ("pending", "running", "success", "error", "timeout", "interrupted"),
}
# A namespace as adoption will spell it, near enough to count clashes before the function that does it is there.
_SPELLED = """replace(translate(namespace, '{}"', ''), ',', '.')"""


def _encoded(column: str) -> str:
    """Whether a column holds a string that looks like a JSON document, as adoption sees it before it tries to read it."""
    return f"""(jsonb_typeof({column}) = 'string' AND {column} #>> '{{}}' ~ '^\\s*["{{[]')"""


def _row_checks(table: str) -> list[Check]:
    """The checks that every table has."""
    id = _ITEM if table == "store_items" else "id::text"
    of = f"SELECT {id} AS id FROM langgraph_server.{table} WHERE"
    encoded = " OR ".join(_encoded(f'"{column}"') for column in DOCUMENTS[table])
    left = " OR ".join(
        f"""({"NOT by_service AND " if column in _ANY_VALUE else ""}langgraph_server.unwrap("{column}") IS DISTINCT FROM "{column}")"""
        for column in DOCUMENTS[table]
        if table == "thread_states" or column not in _ANY_VALUE
    )
    strange = " OR ".join(
        f"""coalesce(jsonb_typeof("{column}"), 'null') NOT IN ('object', 'null')"""
        if column in ("metadata", "config", "context")
        else f"""jsonb_typeof("{column}") = 'string'"""
        for column in DOCUMENTS[table]
        if column not in _ANY_VALUE
    )
    poison = " OR ".join(
        f"{column} < '0001-01-01 00:00+00' OR {column} >= '10000-01-01 00:00+00'" for column in _TIMES[table]
    )
    documents = tuple(f"{table}.{column}" for column in DOCUMENTS[table])
    times = tuple(f"{table}.{column}" for column in _TIMES[table])
    return [
        Check(
            REPAIR,
            f"double_encoded_{table}",
            f"{table} hold strings that look like JSON; those that are a document are unwrapped, the others stay",
            f"{of} {encoded}",
            documents,
            "before",
        ),
        Check(
            WARNING,
            f"double_encoded_{table}",
            f"{table} hold JSON in a JSON string, written while the triggers of the service were gone; correct the rows by hand",
            f"{of} {left}",
            documents,
            "after",
        ),
        Check(
            WARNING,
            f"not_an_object_{table}",
            f"{table} hold something else where a JSON object or array belongs; correct the rows by hand",
            f"{of} ({strange}) AND NOT ({encoded})",
            documents,
            "before",
        ),
        Check(
            WARNING,
            f"not_an_object_{table}",
            f"{table} hold something else where a JSON object or array belongs; correct the rows by hand",
            f"{of} ({strange}) AND NOT ({left})",
            documents,
            "after",
        ),
        Check(
            ERROR,
            f"time_out_of_range_{table}",
            f"a time of {table} is infinite or outside the years 1 to 9999, so that no client can read the row; correct it by hand",
            f"{of} {poison}",
            times,
        ),
    ]


def _owner_checks(table: str) -> list[Check]:
    text = f"{table} without metadata.owner, which no owner sees; `storage-service assign-owner` gives them one"
    ownerless = f"SELECT id FROM langgraph_server.{table} x WHERE metadata ->> 'owner' IS NULL"
    # Adoption finds the owner of some: inside of metadata that are encoded twice, or at a run's thread.
    yet = f"{ownerless} AND NOT {_encoded('metadata')}"
    if table == "runs":
        yet += (
            " AND NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = x.thread_id"
            f" AND (t.metadata ->> 'owner' IS NOT NULL OR {_encoded('t.metadata')}))"
        )
    needs = (f"{table}.metadata", *(("runs.thread_id", "threads.metadata") if table == "runs" else ()))
    return [
        Check(WARNING, f"ownerless_{table}", text, yet, needs, "before"),
        Check(WARNING, f"ownerless_{table}", text, ownerless, needs, "after"),
    ]


def _owner_text_check(table: str) -> Check:
    owner = "owner_id" if table == "store_items" else "metadata ->> 'owner'"
    id = _ITEM if table == "store_items" else "id"
    return Check(
        WARNING,
        f"unreachable_owner_{table}",
        f"{table} whose owner is empty, longer than 255 bytes or holds control characters: no call can act for it",
        f"SELECT {id} AS id FROM langgraph_server.{table}"
        f" WHERE octet_length({owner}) NOT BETWEEN 1 AND 255 OR {owner} ~ '[[:cntrl:]]'",
        (f"{table}.metadata",),
    )


def _id_check(table: str) -> Check:
    return Check(
        WARNING,
        f"unreachable_id_{table}",
        f"{table} whose id is empty, longer than 255 bytes or holds control characters cannot be named in a call",
        f"SELECT id FROM langgraph_server.{table} WHERE octet_length(id) NOT BETWEEN 1 AND 255 OR id ~ '[[:cntrl:]]'",
        (f"{table}.id",),
    )


def _status_check(table: str) -> Check:
    words = ", ".join(f"'{word}'" for word in _STATUSES[table])
    return Check(
        WARNING,
        f"unknown_status_{table}",
        f"{table} whose status is a word that the service does not know",
        f"SELECT id FROM langgraph_server.{table} WHERE status NOT IN ({words})",
        (f"{table}.status",),
    )


CHECKS = [
    *(check for table in DOCUMENTS for check in _row_checks(table)),
    *(check for table in _NAMES for check in _owner_checks(table)),
    *(_owner_text_check(table) for table in (*_NAMES, "store_items")),
    *(_id_check(table) for table in _NAMES),
    *(_status_check(table) for table in _STATUSES),
    Check(
        REPAIR,
        "runs_inherit_owner",
        "runs without an owner whose thread has one; they get it",
        "SELECT r.id FROM langgraph_server.runs r JOIN langgraph_server.threads t ON t.id = r.thread_id"
        " WHERE r.metadata ->> 'owner' IS NULL AND t.metadata ->> 'owner' IS NOT NULL",
        ("runs.metadata", "threads.metadata"),
        "before",
    ),
    Check(
        WARNING,
        "runs_without_thread",
        "runs whose thread is not there; their owner can read them, and delete them with DeleteRun",
        "SELECT r.id FROM langgraph_server.runs r WHERE r.thread_id IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = r.thread_id)",
        ("runs.thread_id", "threads.id"),
    ),
    Check(
        REPAIR,
        "parent_json_null",
        "states whose parent_checkpoint is JSON null; it becomes NULL, which means the same",
        "SELECT id::text FROM langgraph_server.thread_states WHERE parent_checkpoint = 'null'",
        ("thread_states.parent_checkpoint",),
        "before",
    ),
    Check(
        REPAIR,
        "namespace_spelling",
        "namespaces written as a list, {a.b} or {a,b}; those that are one of labels are spelt a.b, the others stay",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items WHERE starts_with(namespace, '{{')",
        ("store_items.namespace",),
        "before",
    ),
    Check(
        REPAIR,
        "namespace_clash",
        "items that differ by the spelling of the namespace alone; the newest stays, the others are kept in store_items_displaced",
        f"SELECT min({_SPELLED}) || ' / ' || key || ' / ' || owner_id AS id FROM langgraph_server.store_items"
        f" GROUP BY {_SPELLED}, key, owner_id HAVING count(*) > 1",
        ("store_items.namespace",),
        "before",
    ),
    Check(
        WARNING,
        "namespace_unreachable",
        "items whose namespace has an empty label or looks like a broken list; their spelling is kept",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items"
        " WHERE '' = ANY (string_to_array(namespace, '.')) OR namespace = '' OR starts_with(namespace, '{')",
        ("store_items.version",),
    ),
    Check(
        ERROR,
        "items_not_adopted",
        "items that no migration has looked at; run `storage-service migrate`",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items WHERE version = 0",
        ("store_items.version",),
    ),
    Check(
        INFO,
        "items_displaced",
        "items that lost against a newer one with another spelling, kept in langgraph_server.store_items_displaced",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items_displaced",
        ("store_items_displaced.namespace",),
    ),
    Check(
        WARNING,
        "crons_without_schedule",
        "crons whose schedule has not five fields; they are kept and do not fire",
        r"SELECT id FROM langgraph_server.crons WHERE schedule !~ '^\s*(@|\S+(\s+\S+){4}\s*$)'",
        ("crons.schedule",),
    ),
    Check(
        WARNING,
        "crons_without_tick",
        "crons that are on and have no next tick: their schedule or time zone can't be used, or no migration has run since they were made",
        # One that ends before its next tick has none, and needs none.
        "SELECT id FROM langgraph_server.crons WHERE enabled AND next_run_date IS NULL"
        " AND (end_time IS NULL OR end_time > now() + interval '1 year')",
        ("crons.enabled", "crons.next_run_date", "crons.end_time"),
    ),
    Check(
        WARNING,
        "checkpoints_without_thread",
        "threads that have checkpoints and no row; `storage-service assign-owner` creates the rows",
        "SELECT DISTINCT c.thread_id AS id FROM public.checkpoints c"
        " WHERE NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = c.thread_id)",
        ("checkpoints.thread_id", "threads.id"),
    ),
    Check(
        WARNING,
        "checkpoints_without_thread",
        "threads that have checkpoints and no row; `storage-service migrate` makes the table of threads",
        "SELECT DISTINCT c.thread_id AS id FROM public.checkpoints c",
        ("checkpoints.thread_id",),
        until=("threads.id",),
    ),
]
