"""A Postgres that may be stopped, killed and frozen, and that keeps what it acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import psutil

from tests.postgres_server import PostgresServer, start

# What the session's Postgres does without. A crash of the processes, unlike one of the machine, loses nothing without fsync.
_DURABLE = "synchronous_commit = on\n"
_SECONDS = 20.0


class Cluster:
    """A Postgres of its own, with databases by name."""

    def __init__(self) -> None:
        self.server: PostgresServer = start()
        with (self.server.directory / "postgresql.conf").open("a") as file:
            file.write(_DURABLE)
        self.server.control("reload")

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self.server.port

    def create_database(self) -> str:
        """The connection string, over TCP, of a new database."""
        return self.server.url(self.server.create_database(), tcp=True)

    def postmaster(self) -> psutil.Process:
        """The process that all others come from."""
        return psutil.Process(int((self.server.directory / "postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """End it as a crash does, and wait until the last of its processes has noticed."""
        postmaster = self.postmaster()
        children = postmaster.children(recursive=True)
        postmaster.send_signal(signal.SIGKILL)
        psutil.wait_procs(children, timeout=_SECONDS)

    def start(self) -> None:
        """Start it, again and again while the pid of a killed one lingers."""
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self.server.start()
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def start_if_stopped(self) -> None:
        """Leave it running, whatever a test did."""
        if not (self.server.directory / "postmaster.pid").exists():
            self.start()

    def stop(self, mode: str = "fast") -> None:
        """Stop it as an operator does."""
        self.server.stop(mode)

    def freeze(self) -> None:
        """Stop every process where it is: connections stay open and nothing answers."""
        postmaster = self.postmaster()
        postmaster.suspend()
        for child in postmaster.children(recursive=True):
            child.suspend()

    def thaw(self) -> None:
        """Let every process go on."""
        postmaster = self.postmaster()
        for child in postmaster.children(recursive=True):
            child.resume()
        postmaster.resume()

    def end(self) -> None:
        """End it for good."""
        for process in (*self.postmaster().children(recursive=True), self.postmaster()):
            process.resume()
        self.server.stop("immediate")


def freeze(pid: int) -> None:
    """Stop one process where it is."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let it go on, where it still is."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)
