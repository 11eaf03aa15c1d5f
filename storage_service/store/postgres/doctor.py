"""Says what a database holds that the service cannot show, or that adoption will change; reads only, before and after a migration.

A check whose columns are not there yet is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from storage_service.store.postgres import checkpoint_tables
from storage_service.store.postgres.checks import CHECKS, DOCUMENTS, ERROR, INFO, REPAIR, WARNING, Check
from storage_service.store.postgres.migrate import LATEST, MIGRATIONS, connected, revision
from storage_service.store.postgres.rights import TableFacts, tables

# The revision from which on the rows that the runtimes left have been made whole.
_ADOPTED = next(migration.revision for migration in MIGRATIONS if migration.name.endswith("_adopt"))
_SAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """Something worth knowing.

    ``severity`` is "error" (the service does not work, or not rightly, until it is dealt with), "warning" (rows that somebody misses),
    "repair" (a migration will deal with it by itself) or "info"; ``code`` is a stable word; ``count`` is how many rows it is about and
    ``ids`` are the first few of them.
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
    """What ``examine`` found. ``revision`` is the schema's (0: not there), ``latest`` the one that this service needs.

    ``tables`` has a line for each of LangGraph's checkpoint tables: its columns and indexes beside those that LangGraph makes.
    """

    revision: int
    latest: int = LATEST
    rows: dict[str, int] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def needs_attention(self) -> bool:
        """Whether something must be dealt with before the service works rightly."""
        return any(finding.severity == ERROR for finding in self.findings)

    def find(self, code: str) -> Finding | None:
        """The finding with this code."""
        return next((finding for finding in self.findings if finding.code == code), None)

    def lines(self) -> list[str]:
        """The report as text: the revision, the rows of every table, LangGraph's tables, then the findings, worst first."""
        order = (ERROR, WARNING, REPAIR, INFO)
        findings = sorted(self.findings, key=lambda finding: order.index(finding.severity))
        counts = ", ".join(f"{table} {count}" for table, count in self.rows.items())
        return [
            f"schema revision {self.revision}, this service needs {self.latest}",
            f"rows: {counts or 'none'}",
            *([f"checkpoint tables, beside those of {checkpoint_tables.MADE_BY}:"] if self.tables else []),
            *(f"  {line}" for line in self.tables),
            *(finding.line() for finding in findings),
            *(
                ["what is marked repair, `storage-service migrate` does by itself; so does `serve` when it starts"]
                if any(finding.severity == REPAIR for finding in findings)
                else []
            ),
            *([] if findings else ["nothing to report"]),
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
        checkpoints = await checkpoint_tables.look(conn, unreadable)
        report.tables = checkpoints.lines
        report.findings += _checkpoint_findings(checkpoints)
        columns = await _columns(conn, unreadable)
        for table in sorted({name.split(".")[0] for name in columns}):
            schema = "langgraph_server" if table in DOCUMENTS else "public"
            if table in DOCUMENTS or table == "checkpoints":
                cursor = await conn.execute(
                    sql.SQL("SELECT count(*) AS count FROM {}").format(sql.Identifier(schema, table))
                )
                row = await cursor.fetchone()
                report.rows[table] = row["count"] if row else 0
        for check in CHECKS:
            is_due = check.when != ("before" if report.revision >= _ADOPTED else "after")
            if is_due and set(check.needs) <= columns and not (check.until and set(check.until) <= columns):
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
        text = "the tables are not yet as this service needs them; run `storage-service migrate`"
        return [Finding(ERROR, "schema_older", text)]
    return []


def _table_findings(facts: list[TableFacts]) -> list[Finding]:
    """What the role of the connection cannot do with the tables, and which of them are open."""
    findings: list[Finding] = []
    unsecured: list[str] = []
    for table in facts:
        if not (table.readable and table.visible):
            text = f'the role "{table.user}" sees no rows of {table.name}, which belongs to "{table.owner}"'
            findings.append(Finding(ERROR, "table_hidden", f"{text}; grant it that role, or BYPASSRLS"))
        elif not table.owned:
            text = f'{table.name} belongs to the role "{table.owner}"; run migrations as that role'
            findings.append(Finding(WARNING, "table_not_owned", text))
        if not table.secured:
            unsecured.append(table.name)
    if unsecured:
        text = "tables whose row-level security is off; it is turned on"
        findings.append(Finding(REPAIR, "table_not_secured", text, len(unsecured), tuple(unsecured[:_SAMPLES])))
    return findings


def _checkpoint_findings(found: checkpoint_tables.Found) -> list[Finding]:
    """What LangGraph's tables lack of what its savers, and the service, use."""
    if found.step is None:
        return []  # which is told already
    latest = checkpoint_tables.LATEST_STEP
    if found.step > latest:
        text = f"a newer LangGraph has set up its checkpoint tables (step {found.step}; this service knows {latest}); upgrade the service"
        return [Finding(WARNING, "checkpoint_tables_newer", text)]
    is_due = found.step < latest
    remedy = (
        "LangGraph's setup makes them"
        if is_due
        else f"LangGraph's setup has made them (step {latest} of {latest}) and does not again; put them back by hand"
    )
    kinds = (
        (ERROR, "checkpoint_tables", "checkpoint tables that are not there", found.tables),
        (
            ERROR,
            "checkpoint_columns",
            "columns of checkpoint tables that are not there, or of another type",
            found.columns,
        ),
        (ERROR, "checkpoint_keys", "primary keys of checkpoint tables that are not there", found.keys),
        (WARNING, "checkpoint_indexes", "indexes of checkpoint tables that are not there", found.indexes),
    )
    return [
        Finding(REPAIR if is_due else severity, code, f"{text}; {remedy}", len(names), tuple(names[:_SAMPLES]))
        for severity, code, text, names in kinds
        if names
    ]


async def _index_findings(conn: AsyncConnection[Any]) -> list[Finding]:
    cursor = await conn.cursor(row_factory=dict_row).execute(
        "SELECT i.relname AS name FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
        " JOIN pg_namespace n ON n.oid = i.relnamespace"
        " WHERE n.nspname IN ('langgraph_server', 'public') AND NOT x.indisvalid ORDER BY 1"
    )
    names = tuple(row["name"] for row in await cursor.fetchall())
    if not names:
        return []
    text = "indexes whose building was cut short; they are built again"
    return [Finding(REPAIR, "index_invalid", text, len(names), names[:_SAMPLES])]


async def _columns(conn: AsyncConnection[Any], unreadable: set[str]) -> set[str]:
    """The columns that there are, as "table.column"."""
    cursor = await conn.cursor(row_factory=dict_row).execute(
        'SELECT c.relname AS "table", a.attname AS "column" FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid'
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')"
        " AND (n.nspname = 'langgraph_server' OR (n.nspname = 'public' AND c.relname = 'checkpoints'))"
    )
    return {f"{row['table']}.{row['column']}" for row in await cursor.fetchall() if row["table"] not in unreadable}


async def _run(conn: AsyncConnection[Any], check: Check) -> list[Finding]:
    cursor = await conn.cursor(row_factory=dict_row).execute(
        sql.SQL(
            "WITH found AS MATERIALIZED ({}) SELECT count(*) AS count, ARRAY(SELECT id FROM found ORDER BY id LIMIT {}) AS ids FROM found"
        ).format(sql.SQL(check.query), sql.Literal(_SAMPLES))
    )
    row = await cursor.fetchone()
    if row is None or not row["count"]:
        return []
    return [Finding(check.severity, check.code, check.text, row["count"], tuple(row["ids"]))]
