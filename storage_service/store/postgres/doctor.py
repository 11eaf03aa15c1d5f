"""Says what a database holds that the service cannot show, or that adoption will change; reads only, before and after a migration.

Every check is one query that gives the ids of the rows it is about. A check whose columns are not there yet is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from storage_service.store.postgres.migrate import LATEST, connected, revision
from storage_service.store.postgres.rights import TableFacts, tables

INFO, WARNING, ERROR = "info", "warning", "error"
_SAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """Something worth knowing.

    ``severity`` is "error" (the service does not work, or not rightly, until it is dealt with), "warning" (rows that somebody misses) or
    "info"; ``code`` is a stable word; ``count`` is how many rows it is about and ``ids`` are the first few of them.
    """

    severity: str
    code: str
    text: str
    count: int = 0
    ids: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding in one line."""
        some = (
            f" [{self.count}: {', '.join(self.ids)}{', ...' if self.count > len(self.ids) else ''}]" if self.ids else ""
        )
        return f"{self.severity:<8}{self.code}: {self.text}{some}"


@dataclass
class Report:
    """What ``examine`` found. ``revision`` is the schema's (0: not there), ``latest`` the one that this service needs."""

    revision: int
    latest: int = LATEST
    rows: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def needs_attention(self) -> bool:
        """Whether something must be dealt with before the service works rightly."""
        return any(finding.severity == ERROR for finding in self.findings)

    def find(self, code: str) -> Finding | None:
        """The finding with this code."""
        return next((finding for finding in self.findings if finding.code == code), None)

    def lines(self) -> list[str]:
        """The report as text: the revision, the rows of every table, then the findings, worst first."""
        order = (ERROR, WARNING, INFO)
        findings = sorted(self.findings, key=lambda finding: order.index(finding.severity))
        counts = ", ".join(f"{table} {count}" for table, count in self.rows.items())
        return [
            f"schema revision {self.revision}, this service needs {self.latest}",
            f"rows: {counts or 'none'}",
            *(finding.line() for finding in findings),
            *([] if findings else ["nothing to report"]),
        ]


@dataclass(frozen=True)
class _Check:
    """A query for the ids ("id") of rows that something is to be said about; ``needs`` are the columns without which it cannot run."""

    severity: str
    code: str
    text: str
    query: str
    needs: tuple[str, ...]
    # Columns that, once they are there, make the check pointless.
    until: tuple[str, ...] = ()


_NAMES = ("assistants", "threads", "runs", "crons")
_ITEM = "namespace || ' / ' || key || ' / ' || owner_id"
_DOCUMENTS = {
    "assistants": ("metadata", "config", "context"),
    "threads": ("metadata", "config", "values", "interrupts"),
    "thread_states": ("values", "metadata", "tasks", "interrupts", "parent_checkpoint"),
    "runs": ("metadata", "kwargs"),
    "store_items": ("metadata",),
    "crons": ("metadata", "payload"),
}
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


def _row_checks(table: str) -> list[_Check]:
    """The checks that every table has."""
    id = _ITEM if table == "store_items" else "id::text"
    of = f"SELECT {id} AS id FROM langgraph_server.{table} WHERE"
    encoded = " OR ".join(
        f"""(jsonb_typeof("{column}") = 'string' AND "{column}" #>> '{{}}' ~ '^\\s*["{{[]')"""
        for column in _DOCUMENTS[table]
    )
    objects = [column for column in _DOCUMENTS[table] if column in ("metadata", "config", "context")]
    strange = " OR ".join(
        f"""coalesce(jsonb_typeof("{column}"), 'null') NOT IN ('object', 'null')""" for column in objects
    )
    poison = " OR ".join(
        f"{column} < '0001-01-01 00:00+00' OR {column} >= '10000-01-01 00:00+00'" for column in _TIMES[table]
    )
    documents = tuple(f"{table}.{column}" for column in _DOCUMENTS[table])
    times = tuple(f"{table}.{column}" for column in _TIMES[table])
    return [
        _Check(
            WARNING,
            f"double_encoded_{table}",
            f"{table} hold JSON in a JSON string; `storage-service migrate` unwraps what it can",
            f"{of} {encoded}",
            documents,
        ),
        _Check(
            WARNING,
            f"not_an_object_{table}",
            f"metadata, config or context of {table} is no JSON object; correct the rows by hand",
            f"{of} {strange}",
            documents,
        ),
        _Check(
            ERROR,
            f"time_out_of_range_{table}",
            f"a time of {table} is infinite or outside the years 1 to 9999, so that no client can read the row; correct it by hand",
            f"{of} {poison}",
            times,
        ),
    ]


def _owner_check(table: str) -> _Check:
    return _Check(
        WARNING,
        f"ownerless_{table}",
        f"{table} without metadata.owner, which no owner sees; `storage-service assign-owner` gives them one",
        f"SELECT id FROM langgraph_server.{table} WHERE metadata ->> 'owner' IS NULL",
        (f"{table}.metadata",),
    )


def _owner_text_check(table: str) -> _Check:
    owner = "owner_id" if table == "store_items" else "metadata ->> 'owner'"
    id = _ITEM if table == "store_items" else "id"
    return _Check(
        WARNING,
        f"unreachable_owner_{table}",
        f"{table} whose owner is empty, longer than 255 bytes or holds control characters: no call can act for it",
        f"SELECT {id} AS id FROM langgraph_server.{table}"
        f" WHERE octet_length({owner}) NOT BETWEEN 1 AND 255 OR {owner} ~ '[[:cntrl:]]'",
        (f"{table}.metadata",),
    )


def _id_check(table: str) -> _Check:
    return _Check(
        WARNING,
        f"unreachable_id_{table}",
        f"{table} whose id is empty, longer than 255 bytes or holds control characters cannot be named in a call",
        f"SELECT id FROM langgraph_server.{table} WHERE octet_length(id) NOT BETWEEN 1 AND 255 OR id ~ '[[:cntrl:]]'",
        (f"{table}.id",),
    )


def _status_check(table: str) -> _Check:
    words = ", ".join(f"'{word}'" for word in _STATUSES[table])
    return _Check(
        WARNING,
        f"unknown_status_{table}",
        f"{table} whose status is a word that the service does not know",
        f"SELECT id FROM langgraph_server.{table} WHERE status NOT IN ({words})",
        (f"{table}.status",),
    )


_CHECKS = [
    *(check for table in _DOCUMENTS for check in _row_checks(table)),
    *(_owner_check(table) for table in _NAMES),
    *(_owner_text_check(table) for table in (*_NAMES, "store_items")),
    *(_id_check(table) for table in _NAMES),
    *(_status_check(table) for table in _STATUSES),
    _Check(
        INFO,
        "runs_inherit_owner",
        "runs without an owner whose thread has one; `storage-service migrate` gives it to them",
        "SELECT r.id FROM langgraph_server.runs r JOIN langgraph_server.threads t ON t.id = r.thread_id"
        " WHERE r.metadata ->> 'owner' IS NULL AND t.metadata ->> 'owner' IS NOT NULL",
        ("runs.metadata", "threads.metadata"),
    ),
    _Check(
        WARNING,
        "runs_without_thread",
        "runs whose thread is gone; they stay readable by their owner",
        "SELECT r.id FROM langgraph_server.runs r WHERE r.thread_id IS NOT NULL"
        " AND NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = r.thread_id)",
        ("runs.thread_id", "threads.id"),
    ),
    _Check(
        INFO,
        "parent_json_null",
        "states whose parent_checkpoint is JSON null; `storage-service migrate` makes it NULL, which means the same",
        "SELECT id::text FROM langgraph_server.thread_states WHERE parent_checkpoint = 'null'",
        ("thread_states.parent_checkpoint",),
    ),
    _Check(
        INFO,
        "namespace_spelling",
        "namespaces written as a list, {a.b} or {a,b}; `storage-service migrate` spells them a.b",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items WHERE starts_with(namespace, '{{')",
        ("store_items.namespace",),
        ("store_items.version",),
    ),
    _Check(
        WARNING,
        "namespace_clash",
        "items that differ by the spelling of the namespace alone; the newest stays, the others go to store_items_displaced",
        f"SELECT min({_SPELLED}) || ' / ' || key || ' / ' || owner_id AS id FROM langgraph_server.store_items"
        f" GROUP BY {_SPELLED}, key, owner_id HAVING count(*) > 1",
        ("store_items.namespace",),
        ("store_items.version",),
    ),
    _Check(
        WARNING,
        "namespace_unreachable",
        "items whose namespace has an empty label or looks like a broken list; their spelling is kept",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items"
        " WHERE '' = ANY (string_to_array(namespace, '.')) OR namespace = '' OR starts_with(namespace, '{')",
        ("store_items.version",),
    ),
    _Check(
        ERROR,
        "items_not_adopted",
        "items that no migration has looked at; run `storage-service migrate`",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items WHERE version = 0",
        ("store_items.version",),
    ),
    _Check(
        INFO,
        "items_displaced",
        "items that lost against a newer one with another spelling, kept in langgraph_server.store_items_displaced",
        f"SELECT {_ITEM} AS id FROM langgraph_server.store_items_displaced",
        ("store_items_displaced.namespace",),
    ),
    _Check(
        WARNING,
        "crons_without_schedule",
        "crons whose schedule has not five fields; they are kept and do not fire",
        r"SELECT id FROM langgraph_server.crons WHERE schedule !~ '^\s*(@|\S+(\s+\S+){4}\s*$)'",
        ("crons.schedule",),
    ),
    _Check(
        WARNING,
        "checkpoints_without_thread",
        "threads that have checkpoints and no row; `storage-service assign-owner` creates the rows",
        "SELECT DISTINCT c.thread_id AS id FROM public.checkpoints c"
        " WHERE NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = c.thread_id)",
        ("checkpoints.thread_id", "threads.id"),
    ),
    _Check(
        WARNING,
        "checkpoints_without_thread",
        "threads that have checkpoints and no row; `storage-service migrate` makes the table of threads",
        "SELECT DISTINCT c.thread_id AS id FROM public.checkpoints c",
        ("checkpoints.thread_id",),
        ("threads.id",),
    ),
]


async def examine(conninfo: str) -> Report:
    """Looks at a database, adopted or not; changes nothing. Raises psycopg.Error when it cannot be read."""
    async with connected(conninfo) as conn, conn.transaction():
        await conn.execute("SET TRANSACTION READ ONLY")
        facts = await tables(conn)
        unreadable = {table.name.split(".")[1] for table in facts if not (table.readable and table.visible)}
        known = "storage_service_migrations" not in unreadable
        report = Report(await revision(conn) if known else 0)
        report.findings += _schema_findings(report.revision) if known else []
        report.findings += _table_findings(facts)
        report.findings += await _index_findings(conn)
        columns = await _columns(conn, unreadable)
        for table in sorted({name.split(".")[0] for name in columns}):
            schema = "langgraph_server" if table in _DOCUMENTS else "public"
            if table in _DOCUMENTS or table == "checkpoints":
                cursor = await conn.execute(
                    sql.SQL("SELECT count(*) AS count FROM {}").format(sql.Identifier(schema, table))
                )
                row = await cursor.fetchone()
                report.rows[table] = row["count"] if row else 0
        for check in _CHECKS:
            if set(check.needs) <= columns and not (check.until and set(check.until) <= columns):
                report.findings += await _run(conn, check)
        return report


def _schema_findings(found: int) -> list[Finding]:
    if found > LATEST:
        return [
            Finding(
                ERROR, "schema_newer", "a newer version of the service has migrated this database; upgrade the service"
            )
        ]
    if found < LATEST:
        return [Finding(ERROR, "schema_older", "run `storage-service migrate`")]
    return []


def _table_findings(facts: list[TableFacts]) -> list[Finding]:
    """What the role of the connection cannot do with the tables, and which of them are open."""
    findings: list[Finding] = []
    for table in facts:
        if not (table.readable and table.visible):
            text = f'the role "{table.user}" sees no rows of {table.name}, which belongs to "{table.owner}"'
            findings.append(Finding(ERROR, "table_hidden", f"{text}; grant it that role, or BYPASSRLS"))
        elif not table.owned:
            text = f'{table.name} belongs to the role "{table.owner}"; run migrations as that role'
            findings.append(Finding(WARNING, "table_not_owned", text))
        if not table.secured:
            text = f"row-level security is off on {table.name}; `storage-service migrate` turns it on"
            findings.append(Finding(WARNING, "table_not_secured", text))
    return findings


async def _index_findings(conn: AsyncConnection[Any]) -> list[Finding]:
    cursor = await conn.cursor(row_factory=dict_row).execute(
        "SELECT i.relname AS name FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_namespace n ON n.oid = i.relnamespace"
        " WHERE n.nspname IN ('langgraph_server', 'public') AND NOT x.indisvalid ORDER BY 1"
    )
    names = tuple(row["name"] for row in await cursor.fetchall())
    if not names:
        return []
    text = "indexes whose building was cut short; `storage-service migrate` builds them again"
    return [Finding(WARNING, "index_invalid", text, len(names), names[:_SAMPLES])]


async def _columns(conn: AsyncConnection[Any], unreadable: set[str]) -> set[str]:
    """The columns that there are, as "table.column"."""
    cursor = await conn.cursor(row_factory=dict_row).execute(
        'SELECT c.relname AS "table", a.attname AS "column" FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid'
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')"
        " AND (n.nspname = 'langgraph_server' OR (n.nspname = 'public' AND c.relname = 'checkpoints'))"
    )
    return {f"{row['table']}.{row['column']}" for row in await cursor.fetchall() if row["table"] not in unreadable}


async def _run(conn: AsyncConnection[Any], check: _Check) -> list[Finding]:
    cursor = await conn.cursor(row_factory=dict_row).execute(
        sql.SQL(
            "WITH found AS MATERIALIZED ({}) SELECT count(*) AS count, ARRAY(SELECT id FROM found ORDER BY id LIMIT {}) AS ids FROM found"
        ).format(sql.SQL(check.query), sql.Literal(_SAMPLES))
    )
    row = await cursor.fetchone()
    if row is None or not row["count"]:
        return []
    return [Finding(check.severity, check.code, check.text, row["count"], tuple(row["ids"]))]
