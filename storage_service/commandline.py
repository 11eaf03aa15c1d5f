"""What every command of ``storage-service`` does: read the settings, do its work to the end, say what is wrong in one line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from storage_service.settings import Settings, SettingsError, load
from storage_service.workers import WorkerFailed


def read_settings(**given: Any) -> Settings:
    """The settings, or one line that says what is wrong with them."""
    try:
        return load(**given)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def read_url(variable: str) -> str:
    """The connection string that a variable holds, or the file that the variable with ``_FILE`` after its name names."""
    url, file = (os.environ.get(name, "").strip() for name in (variable, f"{variable}_FILE"))
    if url and file:
        raise click.ClickException(f"{variable} and {variable}_FILE are both set: set one")
    if not (url or file):
        raise click.ClickException(
            f"{variable} is not set: put the URL in it, or name a file that holds it in {variable}_FILE"
        )
    try:
        return url or Path(file).read_text().strip()
    except OSError as error:
        raise click.ClickException(f"{variable}_FILE can't be read: {error.strerror}") from error


def run(work: Coroutine[Any, Any, int | None]) -> None:
    """Run a command's work to its end and exit with its status."""
    try:
        import uvloop

        drive: Callable[[Coroutine[Any, Any, int | None]], int | None] = uvloop.run
    except ImportError:  # not made for Windows
        drive = asyncio.run
    try:
        sys.exit(drive(work) or 0)
    except (SettingsError, WorkerFailed) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


def require_database(settings: Settings) -> None:
    """Raises ClickException without a database to work on."""
    if not settings.database_url:
        raise click.ClickException(
            "DATABASE_URL is not set: this command needs a database; serve --embedded shows the one that it has when it starts"
        )
