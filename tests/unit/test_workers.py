"""The port that a supervisor holds for its workers, which nobody else gets, whenever they try; and the end of workers with it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest

from storage_service.settings import PortTaken, Settings
from storage_service.workers import held_port


def bound(port: int, host: str = "127.0.0.1", *, reuse_port: bool = False) -> socket.socket:
    """A socket as gRPC binds one."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def is_taken(port: int) -> bool:
    """Whether a server that shares no port cannot listen on it."""
    try:
        with bound(port) as other:
            other.listen()
    except OSError:
        return True
    return False


@pytest.fixture
def port() -> int:
    """A port that is free."""
    with bound(0) as chosen:
        return int(chosen.getsockname()[1])


@pytest.mark.parametrize("is_chosen", [True, False])
def test_only_workers_get_it(port: int, is_chosen: bool) -> None:
    with held_port(Settings(port=0 if is_chosen else port)) as held:
        assert is_chosen or held == port
        assert is_taken(held)
        with pytest.raises(PortTaken, match=rf"can't listen on 127\.0\.0\.1:{held}: "), held_port(Settings(port=held)):
            pass
        # It does not listen itself: while no worker does, nobody is kept waiting.
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", held), 1)
        for _ in range(2):
            with bound(held, reuse_port=True) as one, bound(held, reuse_port=True) as two:
                one.listen()
                two.listen()
                socket.create_connection(("127.0.0.1", held), 1).close()
            # Between a worker's end and the next one's start.
            assert is_taken(held)
    assert not is_taken(held)


def test_of_two_at_once_one_gets_it(port: int) -> None:
    # The other one was first to bind, and listens last: what Linux lets two do.
    with bound(port) as other:
        with held_port(Settings(port=port)), pytest.raises(OSError, match="in use"):
            other.listen()
        other.listen()
        with pytest.raises(PortTaken), held_port(Settings(port=port)):
            pass


def test_after_connections_that_the_server_closed(port: int) -> None:
    # The system remembers them for a minute: a service that is started again must not wait for that.
    with bound(port, reuse_port=True) as server:
        server.listen()
        client = socket.create_connection(("127.0.0.1", port), 1)
        server.accept()[0].close()
        client.close()
    with held_port(Settings(port=port)) as held, bound(held, reuse_port=True) as worker:
        worker.listen()


def test_a_name() -> None:
    with held_port(Settings(host="localhost", port=0)) as held:
        assert is_taken(held)
        with bound(held, reuse_port=True) as worker:
            worker.listen()
            socket.create_connection(("127.0.0.1", held), 1).close()


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_others(host: str) -> None:
    with pytest.raises(PortTaken, match="is not of this machine"), held_port(Settings(host=host)):
        pass


def test_a_worker_ends_with_its_standard_input() -> None:
    # Which the supervisor holds, on every system. This one is alive and only lets go of it; the worker's loop is busy.
    work = "from storage_service.workers import *; end_with_supervisor(); print('works', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin
        assert worker.stdout
        assert worker.stdout.readline() == b"works\n"
        worker.stdin.close()
        assert worker.wait(timeout=10) == -signal.SIGKILL


def test_what_a_worker_prints_after_its_report_goes_elsewhere() -> None:
    # More than a pipe holds, which nobody would read.
    program = (
        "from storage_service.workers import Report; print('before', end='');"
        " Report('memory').send(); print('x' * 1_000_000)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    *before, report = done.stdout.splitlines()
    assert (before, json.loads(report)["store"]) == (["before"], "memory")
    assert len(done.stderr) > 1_000_000
