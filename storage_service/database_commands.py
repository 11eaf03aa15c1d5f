"""The commands that work on a database by themselves: no server needs to run."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import click

from storage_service.commandline import read_settings, read_url, require_database, run
from storage_service.settings import Settings
from storage_service.validate import check_id

if TYPE_CHECKING:
    from storage_service.store.postgres.imports.report import Report


def _database_url(settings: Settings) -> str:
    import psycopg

    from storage_service.server import database_settings
    from storage_service.store.postgres.connect import connection_string

    require_database(settings)
    try:
        return connection_string(database_settings(settings))
    except psycopg.ProgrammingError as error:
        raise click.ClickException(
            "DATABASE_URL is not a connection string, like postgresql://user@host:5432/database"
        ) from error


async def _with_database(work: Coroutine[Any, Any, int]) -> int:
    """Do work on the database; what goes wrong there becomes one line."""
    import psycopg

    from storage_service.store.postgres import faults
    from storage_service.store.postgres.imports.report import SourceError
    from storage_service.store.postgres.migrate import MigrationError

    try:
        return await work
    except (MigrationError, SourceError) as error:
        raise click.ClickException(str(error)) from error
    except psycopg.OperationalError as error:
        raise click.ClickException(
            f"the database can't be reached ({faults.why_unreachable(error)}); check DATABASE_URL and that Postgres is up"
        ) from error
    except psycopg.Error as error:
        raise click.ClickException(f"the database refused a statement ({faults.kind_of(error)})") from error


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date and adopt the rows that it holds."""
    from storage_service.store.postgres import migrate as migrations

    conninfo = _database_url(read_settings())

    async def work() -> int:
        for name in await migrations.migrate(conninfo):
            click.echo(f"applied {name}")
        click.echo(f"the schema is at revision {migrations.LATEST}")
        return 0

    run(_with_database(work()))


@click.command()
def doctor() -> None:
    """Look at a database and report what the service makes of it. Changes nothing. Exit status 1 when something needs a hand."""
    from storage_service.store.postgres import doctor as examination

    conninfo = _database_url(read_settings())

    async def work() -> int:
        report = await examination.examine(conninfo)
        for line in report.lines():
            click.echo(line)
        return 1 if report.needs_attention else 0

    run(_with_database(work()))


@click.command("assign-owner")
@click.option("--owner", required=True, help="The owner that the rows get.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    help="Only this resource: assistants, threads, runs, crons or checkpoints.",
)
@click.option("--id", "ids", multiple=True, help="Only the row with this id; may be given again.")
@click.option("--all-ownerless", is_flag=True, help="Every row that has no owner.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
def assign_owner(
    owner: str, resources: tuple[str, ...], ids: tuple[str, ...], all_ownerless: bool, dry_run: bool
) -> None:
    """Give rows without an owner one, and checkpoints without a thread a thread of that owner."""
    from storage_service.store.postgres import assign_owner as assignment

    _require_one(
        "say which rows",
        {"--id": bool(ids), "--all-ownerless": all_ownerless},
        "--id ID for some, or --all-ownerless for all",
    )
    conninfo = _database_url(read_settings())

    async def work() -> int:
        try:
            left_out = await assignment.left_out(conninfo, owner, resources=resources, ids=ids)
            counts = await assignment.assign_owner(
                conninfo, owner, resources=resources, ids=ids, all_ownerless=all_ownerless, dry_run=dry_run
            )
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        for resource, count in counts.items():
            click.echo(f"{resource}: {count}{' would be' if dry_run else ''} assigned")
        if left_out:
            told = ", ".join(f"{id} ({reason})" for id, reason in left_out.items())
            raise click.ClickException(f"not assigned: {told}")
        return 0

    run(_with_database(work()))


@click.command("import-store")
@click.option("--owner", default="", help="The owner that all items get.")
@click.option(
    "--owner-label",
    type=click.IntRange(min=1),
    help="The place, 1 for the first, of the label in an item's namespace that is its owner.",
)
@click.option(
    "--on-clash",
    type=click.Choice(["keep", "newest"]),
    default="keep",
    show_default=True,
    help="What stays where an item of the service has other content: that item, or the one that was updated later.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
def import_store(owner: str, owner_label: int | None, on_clash: str, dry_run: bool) -> None:
    """Copy the items of LangGraph's own store, the table public.store of the same database, into the service's.

    Can be run again. Exit status 1 when not everything is there.
    """
    _require_one(
        "say whose the items are",
        {"--owner": bool(owner), "--owner-label": bool(owner_label)},
        "--owner ID, or --owner-label N for the label of the namespace that names the owner",
    )
    from storage_service.store.postgres.imports import store_items

    settings = read_settings()
    conninfo = _database_url(settings)
    if owner:
        _check_owner(owner)

    async def work() -> int:
        return _reported(
            await store_items.import_store(
                conninfo,
                owner=owner,
                owner_label=owner_label or 0,
                newest=on_clash == "newest",
                dry_run=dry_run,
                limits=settings.limits,
                tell=click.echo,
            )
        )

    run(_with_database(work()))


@click.command("import-checkpoints")
@click.option("--from-sqlite", metavar="FILE", help="From the SQLite file of LangGraph's savers.")
@click.option(
    "--from-postgres",
    is_flag=True,
    help="From the Postgres that SOURCE_DATABASE_URL, or the file that SOURCE_DATABASE_URL_FILE names, says.",
)
@click.option("--owner", default="", help="The owner that the threads get.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
def import_checkpoints(from_sqlite: str | None, from_postgres: bool, owner: str, dry_run: bool) -> None:
    """Copy LangGraph's checkpoints from elsewhere into the tables that LangGraph's savers and the service share.

    Can be run again. Exit status 1 when not everything is there.
    """
    _require_one(
        "say where the checkpoints are",
        {"--from-sqlite": bool(from_sqlite), "--from-postgres": from_postgres},
        "--from-sqlite FILE, or --from-postgres",
    )
    if not owner:
        raise click.ClickException("say whose the threads are: --owner ID")
    from storage_service.store.postgres.imports import checkpoints, other_database

    settings = read_settings()
    conninfo = _database_url(settings)
    _check_owner(owner)
    url = read_url(other_database.VARIABLE) if from_postgres else ""

    async def work() -> int:
        async with contextlib.AsyncExitStack() as stack:
            source: checkpoints.Source
            if from_sqlite:
                # Imports LangGraph, which takes a second.
                from storage_service.store.postgres.imports import sqlite_file

                source = stack.enter_context(sqlite_file.opened(from_sqlite))
            else:
                source = await stack.enter_async_context(other_database.opened(url))
            return _reported(
                await checkpoints.import_checkpoints(
                    conninfo, source, owner=owner, dry_run=dry_run, limits=settings.limits, tell=click.echo
                )
            )

    run(_with_database(work()))


def _require_one(what: str, given: dict[str, bool], choice: str) -> None:
    """Raises ClickException unless one of two options is given, and only one."""
    if all(given.values()):
        raise click.ClickException(f"{what}: give one of {' and '.join(given)}, not both")
    if not any(given.values()):
        raise click.ClickException(f"{what}: {choice}")


def _check_owner(owner: str) -> None:
    if wrong := check_id(owner):
        raise click.ClickException(f"--owner {wrong}")


def _reported(report: Report) -> int:
    """Print what an import did; the exit status says whether everything is there."""
    for line in report.lines():
        click.echo(line)
    if not report.is_complete:
        would = "would be" if report.dry_run else "is"
        raise click.ClickException(f"not everything {would} there: see what was refused and what clashes")
    return 0


#: The commands, for the group that they belong to.
COMMANDS: Final = (migrate, doctor, assign_owner, import_store, import_checkpoints)
