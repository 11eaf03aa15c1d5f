"""A Postgres that may be stopped, killed and frozen, and that keeps what it acknowledged."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import psutil

from tests.postgres_server import PostgresServer, start

# What the session's Postgres does without. A crash of the processes, unlike one of the machine, loses nothing without fsync.
_DURABLE = "synchronous_commit = on\n"
_SECONDS = 20.0
_AS_USER = """
import os, pwd, sys
user = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Cluster:
    """A Postgres of its own, with databases by name."""

    def __init__(self) -> None:
        self.server: PostgresServer = start()
        with (self.server.directory / "postgresql.conf").open("a") as file:
            file.write(_DURABLE)
        self.control("reload")

    def control(self, *arguments: str) -> None:
        """Run pg_ctl on it.

        Changing the user is left to a process between: a fork of a process in which gRPC has threads, which changing it here would
        need, crashes now and then.
        """
        command = [str(self.server.embedded.bin_path / "pg_ctl"), "-w", "-D", str(self.server.directory), *arguments]
        user = self.server.embedded.system_user
        if user is not None:
            command = [sys.executable, "-c", _AS_USER, user, *command]
        subprocess.run(
            command,
            check=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

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
                options = f"-h 127.0.0.1 -p {self.port} -k {self.server.directory}"
                self.control("-l", str(self.server.directory / "log"), "-o", options, "start")
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
        self.control("-m", mode, "stop")

    def restart(self) -> None:
        """Stop it and start it at once."""
        self.control("-m", "fast", "restart")

    def freeze(self) -> None:
        """Stop every process where it is: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process go on."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """End it for good."""
        self.thaw()
        self.stop("immediate")
        shutil.rmtree(self.server.directory.parent)

    def _signal(self, number: signal.Signals) -> None:
        postmaster = self.postmaster()
        postmaster.send_signal(number)
        for child in postmaster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(number)


def freeze(pid: int) -> None:
    """Stop one process where it is."""
    os.kill(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let it go on, where it still is."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGCONT)
