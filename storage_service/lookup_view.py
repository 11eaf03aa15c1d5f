"""What the commands that look things up print: rows of the database as a table, one row as all of its fields, or both as JSON."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import click

from storage_service.store.postgres.lookups import MOST_COUNTED, Fields, Found
from storage_service.terminal import ascii_json, clean, span, table

Row = Mapping[str, Any]
# A row of a table: its cells by their headings.
Cells = dict[str, str]

# What comes first of a row; other columns follow in the database's order, and the documents last.
_FIRST: Final = (
    *("run_id", "thread_id", "owner_id", "assistant_id", "status", "attempt", "lease", "cancel", "run_after", "error"),
    *("created_at", "updated_at", "finished_at"),
)
_DOCUMENTS: Final = ("config", "metadata", "kwargs", "interrupts", "values")
# The columns of a table that may be cut where a terminal is too narrow: all but what a command takes.
_CUT: Final = frozenset({"owner", "thread", "type", "note"})
# How the database writes what is empty, and how it reads better.
_EMPTY: Final = {"{\n}": "{}", "[\n]": "[]"}
# What a lease is told of together.
_LEASE: Final = ("worker_id", "lease_token", "lease_expires_at")
# How the names of times end.
_TIMES: Final = ("_at", "_after", "_tick")
_NUMBERS: Final = frozenset({"try", "in flight", "threads", "sequence", "position", "bytes"})


def show_list(found: Found, what: str, row: Callable[[Row, datetime], Cells], as_json: bool) -> None:
    """Print rows, each made cells by ``row``, which takes it and the time of the database."""
    if as_json:
        click.echo(ascii_json(_array(found.rows)))
        return
    if not found.rows:
        click.echo(f"no {what}")
        return
    _print_table([row(json.loads(text), found.now) for text in found.rows])
    if found.more:
        click.echo(f"there are more {what}: see --limit{' and --after' if what == 'owners' else ''}")


def show_one(fields: Fields, events: Found | None, as_json: bool) -> None:
    """Print all of a row, and the events of a run."""
    if as_json:
        values = dict(fields.values)
        if events is not None:
            values["events"] = _array(events.rows)
        inner = ",\n".join(f"{json.dumps(name)}: {value}" for name, value in values.items())
        click.echo(f"{{\n{ascii_json(inner)}\n}}")
        return
    _print_fields(fields)
    if events is not None:
        click.echo("")
        if not events.rows:
            click.echo("no events")
            return
        rows = [json.loads(text) for text in events.rows]
        if events.more:
            click.echo(f"the last {len(rows)} events, more are before them: see --limit")
        _print_table([_event(row) for row in rows])


def _array(rows: list[str]) -> str:
    """Rows of JSON text as an array, each on a line."""
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


# Rows.


def run_row(row: Row, now: datetime) -> Cells:
    """A run in a list of them."""
    notes = []
    if row["worker_id"] is not None:
        notes += [row["worker_id"], _lease(row["lease_expires_at"], now)]
    elif row["status"] == "pending" and (due := _time(row["run_after"])) is not None and due > now:
        notes.append(f"due in {span((due - now).total_seconds())}")
    if row["cancel"]:
        notes.append(f"asked to stop: {row['cancel']}")
    return {
        "run": _cell(row["run_id"]),
        "owner": _cell(row["owner_id"]),
        "thread": _cell(row["thread_id"]),
        "status": _cell(row["status"]),
        "try": _cell(row["attempt"]),
        "age": _age(row["created_at"], now),
        "note": clean(", ".join(notes)),
    }


def thread_row(row: Row, now: datetime) -> Cells:
    """A thread in a list of them."""
    expires = _time(row["expires_at"])
    return {
        "thread": _cell(row["thread_id"]),
        "owner": _cell(row["owner_id"]),
        "status": _cell(row["status"]),
        "in flight": _cell(row["runs_in_flight"]),
        "age": _age(row["created_at"], now),
        "changed": _ago(row["updated_at"], now),
        "expires": "-" if expires is None else _until(expires, now),
    }


def owner_row(row: Row, now: datetime) -> Cells:
    """An owner in a list of them."""
    return {
        "owner": "(none)" if row["owner_id"] is None else clean(row["owner_id"]),
        "threads": _counted(row["threads"]),
        "in flight": _counted(row["runs_in_flight"]),
        "changed": _ago(row["updated_at"], now),
    }


def _event(row: Row) -> Cells:
    end = f" ({row['end_status']})" if row["end_status"] else ""
    return {
        "sequence": _cell(row["sequence"]),
        "type": _cell(row["type"]) + clean(end),
        "bytes": _cell(row["bytes"]),
        "try": _cell(row["attempt"]),
        "time": _moment(row["created_at"]),
    }


def _print_table(rows: list[Cells]) -> None:
    headings = list(rows[0])
    right = [place for place, heading in enumerate(headings) if heading in _NUMBERS]
    cut = [place for place, heading in enumerate(headings) if heading in _CUT and place]
    # Where somebody reads it, it is to fit; where a program does, nothing is cut.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    text = [headings, *([row[heading] for heading in headings] for row in rows)]
    for line in table(text, right=right, cut=cut, columns=columns):
        click.echo(line)


# One row.


def _print_fields(fields: Fields) -> None:
    values = {name: text for name, text in fields.values.items() if name not in _LEASE or "run_id" not in fields.values}
    if "run_id" in fields.values:
        values["lease"] = ""
    first = [name for name in _FIRST if name in values]
    last = [name for name in _DOCUMENTS if name in values]
    names = [*first, *(name for name in values if name not in first and name not in last), *last]
    room = max(map(len, names)) + 2
    for name in names:
        text = _value(name, values[name], fields.now) if values[name] else _whole_lease(fields)
        head, *rest = text.split("\n")
        click.echo(f"{clean(name):<{room}}{head}".rstrip())
        for line in rest:
            click.echo(f"  {line}")


def _value(name: str, text: str, now: datetime) -> str:
    """A field's value, of JSON text, on as many lines as it has."""
    if text.startswith('"'):
        content = json.loads(text)
        moment = _time(content) if name.endswith(_TIMES) else None
        return clean(content) if moment is None else f"{_moment(content)} ({_relative(moment, now)})"
    if text == "null":
        return "-"
    if text in _EMPTY:
        return _EMPTY[text]
    if text[0] in "{[":
        # On lines of its own, for it may be long.
        return "\n" + "\n".join(clean(line) for line in text.split("\n"))
    return clean(text)


def _whole_lease(fields: Fields) -> str:
    worker, expires = (json.loads(fields.values.get(name, "null")) for name in ("worker_id", "lease_expires_at"))
    if worker is None:
        return "-"
    token = fields.values.get("lease_token", "-")
    return f"{clean(worker)}, token {clean(token)}, {_lease(expires, fields.now)}, until {_moment(expires)}"


def _lease(expires_at: Any, now: datetime) -> str:
    expires = _time(expires_at)
    if expires is None:
        return "lease without an end"
    left = (expires - now).total_seconds()
    return f"lease {span(left)} left" if left > 0 else f"lease lapsed {span(-left)} ago"


# Cells.


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else clean(str(value))


def _counted(number: int) -> str:
    return f"{MOST_COUNTED:,}+" if number > MOST_COUNTED else f"{number:,}"


def _time(text: Any) -> datetime | None:
    """A time as the database writes it in JSON; None for another text, and for what no calendar here has."""
    if isinstance(text, str) and "T" in text:
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(text)
            return moment.astimezone(UTC) if moment.tzinfo is not None else None
    return None


def _moment(text: Any) -> str:
    moment = _time(text)
    return _cell(text) if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


def _age(text: Any, now: datetime) -> str:
    moment = _time(text)
    return _cell(text) if moment is None else span(max(0.0, (now - moment).total_seconds()))


def _ago(text: Any, now: datetime) -> str:
    moment = _time(text)
    return _cell(text) if moment is None else _relative(moment, now)


def _relative(moment: datetime, now: datetime) -> str:
    return _until(moment, now) if moment > now else f"{span((now - moment).total_seconds())} ago"


def _until(moment: datetime, now: datetime) -> str:
    left = (moment - now).total_seconds()
    return f"in {span(left)}" if left > 0 else "is over"
