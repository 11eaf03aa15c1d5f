"""``serve --embedded DIR``: what was acknowledged is there after every end of the server, and nothing is left running by a stop."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from tests.faults.load import Load
from tests.faults.servers import Serve, run, troubles, until, until_healthy
from tests.service import GrpcApi, ServerProcess


def postmaster(directory: Path) -> psutil.Process | None:
    """The running Postgres of a data directory."""
    try:
        process = psutil.Process(int((directory / "postmaster.pid").read_text().split()[0]))
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return process if process.status() != psutil.STATUS_ZOMBIE else None


@pytest.fixture
def directory() -> Iterator[Path]:
    """An empty directory; what runs in it ends with the test. Named before ``serve``, whose servers would start Postgres again."""
    # Not under pytest's own, which only its user may enter, and short, since a socket is to be in it.
    parent = Path(tempfile.mkdtemp(prefix="emb"))
    found = parent / "data"
    found.mkdir()
    yield found
    process = postmaster(found)
    if process is not None:
        children = process.children(recursive=True)
        process.send_signal(signal.SIGQUIT)
        psutil.wait_procs([process, *children], timeout=20)
    shutil.rmtree(parent)


async def keys(server: ServerProcess, owner: str) -> set[str]:
    """The keys of all items of an owner, by way of the service."""
    found: set[str] = set()
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 15)
        while True:
            answer = await GrpcApi(channel, "postgres").call(
                "SearchItems", owner_id=owner, limit=1000, offset=len(found)
            )
            found |= {item.key for item in answer.items}
            if len(answer.items) < 1000:
                return found


async def load_until(server: ServerProcess, owner: str, calls: int, number: signal.Signals) -> Load:
    """Write and read until the server is ended by a signal."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 15)
        load = Load(GrpcApi(channel, "postgres", timeout=5), owner)
        load.start(writers=16)
        await load.until_more(calls)
        server.process.send_signal(number)
        await asyncio.to_thread(server.process.wait, 40)
        await load.stop()
    return load


async def test_ends_and_starts_again(directory: Path, serve: Serve, owner: str) -> None:
    embedded = ("--embedded", str(directory))
    server = await serve("", *embedded)
    first = await load_until(server, owner, 400, signal.SIGKILL)
    process = postmaster(directory)
    assert process is not None, "Postgres outlives the server that was killed"
    server = await serve("", *embedded)
    there = await keys(server, owner)
    assert first.acked <= there <= first.attempted
    assert postmaster(directory) == process
    assert troubles(server.log) == []
    # Stopped as an operator does: the Postgres goes too, although another server that used it was killed.
    second = await load_until(server, f"{owner}-2", 200, signal.SIGTERM)
    assert server.process.returncode == 0
    assert postmaster(directory) is None
    server = await serve("", *embedded)
    assert await keys(server, owner) == there
    assert second.acked <= await keys(server, f"{owner}-2") <= second.attempted
    # Everything killed at once, as by a machine that goes down.
    third = await load_until(server, f"{owner}-3", 200, signal.SIGKILL)
    process = postmaster(directory)
    assert process is not None
    process.kill()

    async def is_reaped() -> bool:
        return not psutil.pid_exists(pid)

    pid = process.pid
    await until(is_reaped, 20)
    server = await serve("", *embedded)
    assert await keys(server, owner) == there
    assert third.acked <= await keys(server, f"{owner}-3") <= third.attempted


async def test_two_servers(directory: Path, serve: Serve, owner: str) -> None:
    embedded = ("--embedded", str(directory))
    one, two = await asyncio.gather(serve("", *embedded), serve("", *embedded))
    async with grpc.aio.insecure_channel(one.target) as channel:
        await until_healthy(channel, 15)
        made = await GrpcApi(channel, "postgres").call("PutItem", owner_id=owner, namespace=["a"], key="k", value="1")
        assert made.ByteSize() > 0
    assert await keys(two, owner) == {"k"}
    one.process.terminate()
    await asyncio.to_thread(one.process.wait, 40)
    # The other one goes on with the Postgres that the first one may have started, and takes it along in the end.
    assert await keys(two, owner) == {"k"}
    assert troubles(two.log) == []
    two.process.terminate()
    await asyncio.to_thread(two.process.wait, 40)

    async def is_gone() -> bool:
        return postmaster(directory) is None

    await until(is_gone, 10)


async def test_several_workers(directory: Path, serve: Serve, owner: str) -> None:
    embedded = ("--embedded", str(directory), "--workers", "2")
    server = await serve("", *embedded)
    load = await load_until(server, owner, 200, signal.SIGKILL)
    # No worker is left, and the Postgres is, as after a single process.
    assert postmaster(directory) is not None
    server = await serve("", *embedded)
    assert load.acked <= await keys(server, owner) <= load.attempted
    pids = psutil.Process(server.process.pid).children()
    assert len([one for one in pids if "--as-worker" in one.cmdline()]) == 2
    assert await asyncio.to_thread(server.stop) == 0
    assert postmaster(directory) is None


@pytest.mark.parametrize("name", ["data", f"{'long' * 15}/{'path' * 15}"], ids=["short", "long"])
async def test_the_start_says_how_the_data_is_reached(directory: Path, serve: Serve, name: str) -> None:
    path = directory.parent / name
    server = await serve("", "--embedded", str(path))
    output = server.process.stdout
    assert output
    lines = [await asyncio.to_thread(output.readline) for _ in range(4)]
    found = re.search(r'^  its data: .*: DATABASE_URL="(.+)" storage-service doctor$', "".join(lines), re.MULTILINE)
    assert found, "a command for one call, which leaves nothing set"
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 15)
    looked = await asyncio.to_thread(run, "doctor", DATABASE_URL=found[1])
    assert (looked.returncode, looked.stderr) == (0, "")
    # A socket has no room in a long path; it is then where others can reach it, which is told.
    assert ("too long for a Unix socket" in server.log.read_text()) == (path != directory)
    assert await asyncio.to_thread(server.stop) == 0


def test_directories_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    for path in (file, full):
        result = run("serve", "--port", "0", "--embedded", str(path))
        assert result.returncode == 1
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert str(path) in line
    assert [child.name for child in full.iterdir()] == ["thesis.txt"]
