"""Workers that cannot be started, that hang or die while they start, and a stop before all of them listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from tests.faults.servers import Serve, end, run, troubles, until, until_healthy
from tests.lifecycle.workers import (
    Faults,
    Held,
    events,
    has_gone,
    health_of_all,
    instances,
    own_channel,
    until_replaced,
    workers,
)
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

TWO = ("--workers", "2")


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database()


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """No faults as yet."""
    return Faults(tmp_path)


@pytest.fixture
async def starting(database: str, faults: Faults) -> AsyncIterator[ServerProcess]:
    """A service whose first worker listens and whose second one starts, until its fault is taken back."""
    # With its database away, a start does not end at SIGTERM either.
    faults.give(2, "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nhold()")
    # As many connections as a test has calls that wait for a lock.
    patience = {"DATABASE_LOCK_TIMEOUT": "20", "DATABASE_POOL_MAX_SIZE": "30"}
    server = ServerProcess("postgres", database, TWO, faults.environment | patience)
    started = asyncio.create_task(asyncio.to_thread(server.start))

    async def is_there() -> bool:
        return hasattr(server, "process")

    await until(is_there, 10)
    try:
        await until_said(server, "worker 1 listens")
        yield server
        # Where a test failed, it still runs.
        server.process.kill()
        # It never said that it serves.
        with pytest.raises(RuntimeError, match="the server did not start"):
            await started
    finally:
        end(server)


async def until_said(server: ServerProcess, words: str, times: int = 1) -> None:
    """Wait until so many lines of the log begin with the words."""

    async def is_said() -> bool:
        return sum(str(line["event"]).startswith(words) for line in events(server)) >= times

    await until(is_said, 30)


async def test_one_that_the_system_cannot_start(serve: Serve, database: str) -> None:
    server = await serve(database, *TWO, environment={"STORAGE_LOG_LEVEL": "INFO"})
    first, second = (workers(server)[number] for number in (1, 2))
    supervisor = psutil.Process(server.process.pid)
    usual = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    # Not one more file, and so no pipe to a new process.
    supervisor.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
    first.kill()
    await until_said(server, "worker 1 ended (it could not be started: ", 3)
    assert len(await health_of_all(server)) == 1
    supervisor.rlimit(psutil.RLIMIT_NOFILE, usual)
    await until_replaced(server, 1)
    assert workers(server)[2] == second
    assert len(await instances(server.target)) == 2


async def test_one_that_dies_again_and_again(serve: Serve, database: str, faults: Faults) -> None:
    faults.give("supervisor", "import storage_service.workers as module\nmodule._PAUSES = (0.0, 0.01, 0.02)")
    server = await serve(database, *TWO, environment=faults.environment)
    first, second = (workers(server)[number] for number in (1, 2))
    faults.give(1, "os._exit(3)")
    first.kill()
    await until_said(server, "worker 1 ended (exit status 3); starting another in its place", 12)
    assert len(await health_of_all(server)) == 1
    faults.take_back(1)
    await until_replaced(server, 1)
    assert workers(server)[2] == second
    assert len(await instances(server.target)) == 2


def test_one_that_dies_again_and_again_at_the_first_start(database: str, faults: Faults) -> None:
    faults.give(2, "os._exit(3)")
    # It counts however long each of them took, since none listened.
    faults.give("supervisor", "import storage_service.workers as module\nmodule._YOUNG_SECONDS = 0.001")
    environment = faults.environment | {"DATABASE_URL": database, "STORAGE_LOG_LEVEL": "ERROR"}
    result = run("serve", "--port", "0", *TWO, **environment)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: worker 2 ended 6 times in a row, each before it listened or within 0.001 s of its start: exit status 3\n"
    )


async def test_one_that_hangs_while_it_starts(serve: Serve, database: str, faults: Faults) -> None:
    faults.give("supervisor", "import storage_service.workers as module\nmodule._START_SECONDS = 5.0")
    # Once only: what takes its place starts as ever.
    faults.give(1, "fault.unlink()\nhold(lambda: True)")
    environment = faults.environment | {"DATABASE_PROBE_SECONDS": "1"}
    server = await asyncio.wait_for(serve(database, *TWO, environment=environment), 40)
    await until_said(server, "worker 1 ended (it did not listen within 6 s); starting another in its place")
    assert len(await instances(server.target)) == 2


async def test_lines_that_are_no_report(serve: Serve, database: str, faults: Faults) -> None:
    lines = ["hello", "{}", "[1]", '{"problem": ""}', "x" * 200_000, "\xff", ""]
    faults.give(1, f"for line in {lines}:\n    sys.stdout.buffer.write(line.encode('latin-1') + b'\\n')")
    server = await serve(database, *TWO, environment=faults.environment)
    assert len(await instances(server.target)) == 2
    server.process.terminate()
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    said = sorted(str(line["event"]) for line in events(server) if "worker" not in line)
    assert said == ["stopping", "worker 1 listens", "worker 2 listens"]


async def test_a_stop_before_all_listen_lets_calls_end(starting: ServerProcess, database: str, owner: str) -> None:
    there = workers(starting)
    starting.target = f"127.0.0.1:{there[1].cmdline()[-1]}"
    async with own_channel(starting.target) as channel:
        await until_healthy(channel, 15)
    async with Held.open(starting, owner, database) as held:
        starting.process.terminate()
        await held.until_refused()
        assert has_gone(there[2])
        assert not any(call.done() for call in held.calls)
        await held.let_go()
        await asyncio.gather(*held.calls)
    assert await asyncio.to_thread(starting.process.wait, 20) == 0
    assert has_gone(there[1])
    assert troubles(starting.log) == []


async def test_one_that_died_does_not_count(starting: ServerProcess, faults: Faults) -> None:
    faults.give(1)
    workers(starting)[1].kill()
    await until_said(starting, "worker 1 ended (SIGKILL)")
    faults.take_back(2)
    await until_said(starting, "worker 2 listens")
    starting.process.terminate()
    assert await asyncio.to_thread(starting.process.wait, 20) == 0


async def test_a_stop_while_another_takes_one_s_place(serve: Serve, database: str, faults: Faults) -> None:
    server = await serve(database, *TWO, environment=faults.environment)
    faults.give(1)
    workers(server)[1].kill()
    await until_said(server, "worker 1 ended (SIGKILL)")

    async def is_starting() -> bool:
        return sorted(workers(server)) == [1, 2]

    await until(is_starting, 10)
    there = workers(server).values()
    server.process.terminate()
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    assert all(map(has_gone, there))
    assert troubles(server.log) == []
