"""The Postgres of a run: embedded, new, and with its own default settings, so that what it commits is kept."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from storage_service import embedded


@dataclass(frozen=True, slots=True)
class Database:
    """A running Postgres; all empty when none is measured."""

    url: str = ""
    version: str = ""
    main: psutil.Process | None = None

    def cpu(self) -> float:
        """The seconds of CPU of all of its processes that still run."""
        total = 0.0
        for process in [self.main, *self.main.children()] if self.main else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextlib.asynccontextmanager
async def running(directory: Path, wanted: bool) -> AsyncIterator[Database]:
    """Start one in a directory, and stop it when the block ends; an empty :class:`Database` when none is wanted."""
    if not wanted:
        yield Database()
        return
    async with embedded.running(str(directory / "postgres")) as url:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            version = connection.info.parameter_status("server_version") or ""
            cursor = await connection.execute("SELECT current_setting('fsync'), current_setting('data_directory')")
            fsync, data = await cursor.fetchone() or ("", "")
        assert fsync == "on", "the figures are for a Postgres that keeps what it commits"
        main = int((Path(data) / "postmaster.pid").read_text().splitlines()[0])
        yield Database(url, version.partition(" ")[0], psutil.Process(main))
