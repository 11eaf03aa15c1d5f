"""The command ``storage-service``."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click

# gRPC reads it when it is imported. Its own lines on standard error are no JSON, and say again what the command says itself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from storage_service import __version__
from storage_service.commandline import read_settings, run
from storage_service.database_commands import COMMANDS
from storage_service.lookup_commands import COMMANDS as LOOKUPS
from storage_service.settings import PortTaken, Settings, SettingsError, described
from storage_service.sweep_command import sweep
from storage_service.top_command import top
from storage_service.workers import Report, Workers, end_with_supervisor, held_port

if TYPE_CHECKING:
    from storage_service.logs import Lines


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="storage-service")
def main() -> None:
    """The storage service for agent runtimes. Settings come from the environment; see "storage-service settings"."""


for _command in (*COMMANDS, *LOOKUPS, sweep, top):
    main.add_command(_command)


@main.command()
@click.option("--host", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on (50051; 0 for any).")
@click.option("--embedded", metavar="DIR", help="Serve from an embedded Postgres whose data is in DIR.")
@click.option("--workers", type=int, help="Processes that serve on the port, each with its own pool (1).")
@click.option("--no-migrate", is_flag=True, help="Leave the schema to storage-service migrate.")
@click.option("--allow-insecure-listen", is_flag=True, help="Listen beyond loopback without tokens or TLS.")
@click.option("--as-worker", type=int, default=0, hidden=True)
def serve(
    host: str | None,
    port: int | None,
    embedded: str | None,
    workers: int | None,
    no_migrate: bool,
    allow_insecure_listen: bool,
    as_worker: int,
) -> None:
    """Serve until SIGTERM or Ctrl-C: from DATABASE_URL, from an embedded Postgres, or from memory."""
    if as_worker:
        end_with_supervisor()
    settings = read_settings(
        host=host,
        port=port,
        workers=workers,
        migrate=False if no_migrate else None,
        allow_insecure_listen=allow_insecure_listen or None,
    )
    if as_worker:
        # What was started with --embedded has it running, and says where.
        run(_work(settings, as_worker))
    try:
        settings.check_listening()
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    if embedded and settings.database_url:
        variable = "DATABASE_URL_FILE" if os.environ.get("DATABASE_URL_FILE", "").strip() else "DATABASE_URL"
        raise click.ClickException(
            f"--embedded and {variable} both name a database: unset {variable}, or leave out --embedded (make serve gives it)"
        )
    if settings.workers == 1:
        run(_serve(settings, embedded))
    if not (embedded or settings.database_url):
        raise click.ClickException(
            f"{settings.workers} workers need a database, since each has a memory of its own: set DATABASE_URL, use --embedded DIR,"
            " or serve with --workers 1"
        )
    run(_supervise(settings, embedded))


async def _serve(settings: Settings, embedded: str | None) -> int:
    from storage_service import logs

    lines = logs.set_up(settings.log_level)
    signals = _signals()
    _refuse_taken_port(settings)
    async with _database(settings, embedded) as settings, _serving(settings, lines) as (port, report):
        _say_where(settings, port, report, bool(embedded))
        await signals.get()
    return 0


async def _work(settings: Settings, number: int) -> int:
    """Serve as one of several, as the supervisor says."""
    from storage_service import logs

    lines = logs.set_up(settings.log_level, number)
    signals = _signals()
    try:
        async with _serving(settings, lines, shares_port=True) as (_, report):
            report.send()
            await signals.get()
    except SettingsError as error:
        Report(problem=str(error)).send()
        return 1
    return 0


async def _supervise(settings: Settings, embedded: str | None) -> int:
    """Serve by workers on one port."""
    from storage_service import logs

    logs.set_up(settings.log_level)
    signals = _signals()
    with held_port(settings) as port:
        async with _database(settings, embedded) as settings:
            environment = dict(os.environ) | ({"DATABASE_URL": settings.database_url} if embedded else {})
            where = functools.partial(_say_where, settings, port, is_embedded=bool(embedded))
            return await Workers(settings, port, environment, where).run(signals)


def _refuse_taken_port(settings: Settings) -> None:
    """Raises PortTaken for a port on which another process listens, before a database is made ready for nothing.

    The server binds the port itself, later, and has the last word.
    """
    if not settings.port:
        return
    try:
        with held_port(settings):
            pass
    except PortTaken as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE:
            raise


def _signals() -> asyncio.Queue[signal.Signals]:
    """What tells this process to stop, as it comes."""
    told: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    return told


@contextlib.asynccontextmanager
async def _database(settings: Settings, embedded: str | None) -> AsyncIterator[Settings]:
    """The settings with the embedded Postgres, if one is wanted, which runs until the block ends."""
    if not embedded:
        yield settings
        return
    from dataclasses import replace

    from storage_service.embedded import running

    async with running(embedded) as url:
        yield replace(settings, database_url=url)


@contextlib.asynccontextmanager
async def _serving(settings: Settings, lines: Lines, *, shares_port: bool = False) -> AsyncIterator[tuple[int, Report]]:
    """Serve until the block ends, then stop gracefully; gives the port, and what there is to say of the start."""
    from storage_service.server import Server, open_store

    async with open_store(settings) as store:
        server = Server(settings, store, lines, shares_port=shares_port)
        # What is loaded now stays: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        await server.start()
        yield server.port, Report(store.name, waits=bool(store.trouble()))
        logging.getLogger(__name__).info("stopping")
        await server.stop()


def _say_where(settings: Settings, port: int, report: Report, is_embedded: bool) -> None:
    # Where the server listens on every address, this machine's own is one to call.
    address = settings.target(port)
    flags = "" if settings.tls_cert_file else "-plaintext "
    what = "listens on {} and waits for" if report.waits else "serves on {} from"
    workers = f", with {settings.workers} workers" if settings.workers > 1 else ""
    click.echo(f"storage-service {__version__} {what.format(f'{settings.host}:{port}')} {report.store}{workers}")
    if settings.uses_reflection:
        click.echo(f"  look at it:  grpcurl {flags}{address} list")
    options = ", tls_ca=..." if settings.tls_cert_file else ""
    options += ", token=..." if settings.token_file else ""
    click.echo(f'  use it:      agentstorage.GrpcStorage("{address}"{options}), the Python client')
    if is_embedded:
        # For one call: exported, it would be in the way of the next start.
        command = f'DATABASE_URL="{settings.database_url}" storage-service doctor'
        click.echo(f"  its data:    for other commands, while it runs: {command}")
    click.echo("  stop it:     Ctrl-C")


@main.command()
@click.option("--target", help="The server, as HOST:PORT; by default the one that serve's settings name.")
@click.option("--service", default="", help="The service to ask for; all by default.")
@click.option("--tls", is_flag=True, help="Use TLS with the system's authorities.")
@click.option("--tls-ca", metavar="FILE", help="Use TLS with these authorities (PEM).")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Longest wait in seconds.",
)
def health(target: str | None, service: str, tls: bool, tls_ca: str | None, timeout: float) -> None:
    """Ask a server whether it serves: exit status 0 if so, else 1 and why not. Health asks for no token."""
    run(_health(target, service, tls, tls_ca, timeout, read_settings()))


async def _health(
    target: str | None, service: str, tls: bool, tls_ca: str | None, seconds: float, settings: Settings
) -> int:
    from storage_service import probe

    authorities = None
    if tls_ca:
        authorities = probe.trusted(tls_ca, "--tls-ca")
    elif settings.tls_cert_file and not tls:
        # The server's own certificate is the one to trust here.
        authorities = probe.trusted(settings.tls_cert_file, "STORAGE_TLS_CERT_FILE")
    answer = await probe.ask(
        target or settings.target(),
        service,
        seconds,
        tls=tls or authorities is not None,
        authorities=authorities,
        proxy=target is not None,
    )
    click.echo(answer.line, err=not answer.serves)
    return 0 if answer.serves else 1


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def settings(as_json: bool) -> None:
    """List every setting with its default."""
    rows = described()
    if as_json:
        click.echo(
            json.dumps([{"variable": name, "default": default, "meaning": meaning} for name, default, meaning in rows])
        )
        return
    for name, default, meaning in rows:
        click.echo(f"{name}\n    {meaning} (default: {default or 'empty'})")
