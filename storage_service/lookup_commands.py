"""The commands that look things up in the database, across owners: ``runs``, ``threads`` and ``owners``. They change nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from storage_service.commandline import read_settings, require_database, run
from storage_service.terminal import print_anything
from storage_service.validate import check_id

if TYPE_CHECKING:
    from storage_service.settings import Settings
    from storage_service.store.postgres.database import Database
    from storage_service.store.postgres.lookups import Fields
    from storage_service.store.tables import Table

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

#: The words of the statuses, as the database has them.
RUN_STATUSES: Final = ("pending", "running", "success", "error", "timeout", "interrupted")
THREAD_STATUSES: Final = ("idle", "busy", "interrupted", "error")
# Rows where the command line does not say how many: of a list, and of a run's events.
_ROWS, _EVENTS = 20, 100

_owner = click.option("--owner", help="Only what this owner has.")
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def _limit(rows: str) -> Callable[[Command], Command]:
    return click.option("--limit", type=click.IntRange(1, 10_000), help=f"The most rows ({rows}).")


def _status(words: tuple[str, ...]) -> Callable[[Command], Command]:
    return click.option(
        "--status", "statuses", multiple=True, type=click.Choice(words), help="Only those with it; may be given again."
    )


@click.command()
@click.argument("run_id", required=False)
@_owner
@click.option("--thread", metavar="ID", help="Only runs of this thread.")
@_status(RUN_STATUSES)
@_limit(f"{_ROWS}; of events {_EVENTS}")
@click.option("--events", is_flag=True, help="With RUN_ID: the last events of its log too.")
@_json
def runs(
    run_id: str | None,
    owner: str | None,
    thread: str | None,
    statuses: tuple[str, ...],
    limit: int | None,
    events: bool,
    as_json: bool,
) -> None:
    """List the newest runs in the database, of all owners, or show all of one, with its lease and what asks it to stop."""
    _check(owner=owner, thread=thread, RUN_ID=run_id)
    if run_id is None:
        if events:
            raise click.UsageError("--events needs RUN_ID")
        run(_list_runs(_settings(), owner, thread or "", statuses, limit or _ROWS, as_json))
        return
    if statuses or (limit and not events):
        raise click.UsageError("with RUN_ID, --status is for nothing, and --limit for --events alone")
    run(_show_run(_settings(), run_id, owner, thread or "", (limit or _EVENTS) if events else 0, as_json))


@click.command()
@click.argument("thread_id", required=False)
@_owner
@_status(THREAD_STATUSES)
@_limit(str(_ROWS))
@_json
def threads(
    thread_id: str | None, owner: str | None, statuses: tuple[str, ...], limit: int | None, as_json: bool
) -> None:
    """List the newest threads in the database, of all owners, or show all of one."""
    _check(owner=owner, THREAD_ID=thread_id)
    if thread_id is None:
        run(_list_threads(_settings(), owner, statuses, limit or _ROWS, as_json))
        return
    if statuses or limit:
        raise click.UsageError("with THREAD_ID, --status and --limit are for nothing")
    run(_show_thread(_settings(), thread_id, owner, as_json))


@click.command()
@click.option("--after", metavar="OWNER", help="Only those that come after this one.")
@_limit(str(_ROWS))
@_json
def owners(after: str | None, limit: int | None, as_json: bool) -> None:
    """List the owners in the database with their threads, runs in flight and newest change."""
    _check(after=after)
    run(_list_owners(_settings(), after or "", limit or _ROWS, as_json))


#: The commands, for the group that they belong to.
COMMANDS: Final = (runs, threads, owners)


def _check(**given: str | None) -> None:
    """Raises ClickException for what is no id."""
    for name, value in given.items():
        option = name if name.isupper() else f"--{name}"
        if value is None:
            continue
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise click.ClickException(f"{option} is no text in UTF-8") from error
        # What a runtime wrote may have an id that no call can name: here it can be looked at.
        wrong = check_id(value) if option == "--owner" else "" if value else "must not be empty"
        if wrong:
            raise click.ClickException(f"{option} {wrong}")


def _settings() -> Settings:
    settings = read_settings(migrate=False)
    require_database(settings)
    return settings


async def _looked_up(settings: Settings, look: Callable[[Database], Awaitable[T]]) -> T:
    """What a look at the database finds; what goes wrong there becomes one line."""
    import psycopg

    from storage_service import logs
    from storage_service.errors import DeadlineExceeded, Failure
    from storage_service.server import open_store
    from storage_service.store.postgres import PostgresStore, faults

    # What else there is to say, the command says in its own words.
    logs.set_up("ERROR")
    print_anything()
    async with open_store(settings) as store:
        if trouble := store.trouble():
            raise click.ClickException(trouble)
        assert isinstance(store, PostgresStore)  # noqa: S101 - there is a URL
        try:
            return await look(store.database)
        except DeadlineExceeded as failure:
            raise click.ClickException(
                "the database took too long; say more of what is looked for, or raise DATABASE_STATEMENT_TIMEOUT"
            ) from failure
        except Failure as failure:
            raise click.ClickException(failure.message) from failure
        except psycopg.Error as error:
            raise click.ClickException(f"the database refused a statement ({faults.kind_of(error)})") from error


async def _list_runs(
    settings: Settings, owner: str | None, thread: str, statuses: tuple[str, ...], limit: int, as_json: bool
) -> None:
    from storage_service import lookup_view as view
    from storage_service.store.postgres import lookups

    found = await _looked_up(
        settings,
        lambda database: lookups.find_runs(database, owner, thread_id=thread, statuses=statuses, limit=limit),
    )
    view.show_list(found, "runs", view.run_row, as_json)


async def _list_threads(
    settings: Settings, owner: str | None, statuses: tuple[str, ...], limit: int, as_json: bool
) -> None:
    from storage_service import lookup_view as view
    from storage_service.store.postgres import lookups

    found = await _looked_up(
        settings, lambda database: lookups.find_threads(database, owner, statuses=statuses, limit=limit)
    )
    view.show_list(found, "threads", view.thread_row, as_json)


async def _list_owners(settings: Settings, after: str, limit: int, as_json: bool) -> None:
    from storage_service import lookup_view as view
    from storage_service.store.postgres import lookups

    found = await _looked_up(settings, lambda database: lookups.find_owners(database, after=after, limit=limit))
    view.show_list(found, "owners", view.owner_row, as_json)


async def _show_run(
    settings: Settings, run_id: str, owner: str | None, thread: str, events: int, as_json: bool
) -> None:
    from storage_service import lookup_view as view
    from storage_service.store.postgres import lookups
    from storage_service.store.tables import RUNS

    async def look(database: Database) -> tuple[Fields, lookups.Found | None]:
        fields = await _one(database, RUNS, owner, run_id, thread)
        return fields, await lookups.find_events(database, run_id, events) if events else None

    view.show_one(*await _looked_up(settings, look), as_json)


async def _show_thread(settings: Settings, thread_id: str, owner: str | None, as_json: bool) -> None:
    from storage_service import lookup_view as view
    from storage_service.store.tables import THREADS

    fields = await _looked_up(settings, lambda database: _one(database, THREADS, owner, thread_id, ""))
    view.show_one(fields, None, as_json)


async def _one(database: Database, table: Table[Any], owner: str | None, id: str, thread: str) -> Fields:
    """The row of an id. Raises ClickException where there is none."""
    from storage_service.store.postgres import lookups
    from storage_service.terminal import clean

    fields = await lookups.find_one(database, table, owner, id, thread_id=thread)
    if fields is None:
        whose = "" if owner is None else " of this owner"
        where = " on this thread" if thread else ""
        raise click.ClickException(f"no {table.resource}{whose}{where} has the id {clean(id)}")
    return fields
