"""The example of the queue does what it says: a worker is killed, the other one goes on at its checkpoint, and no event is missed."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "queue_agent.py"


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_a_worker_is_killed_and_another_one_goes_on(make_database: MakeDatabase, backend: str) -> None:
    database = make_database() if backend == "postgres" else ""
    # Other tests take back leases when they mean to; here it is the server's part.
    server = ServerProcess(backend, database, environment={"STORAGE_LEASE_SWEEP_SECONDS": "0.5"}).start()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSTORAGE_")}
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", str(EXAMPLE)],
            env=environment | {"AGENTSTORAGE_TARGET": server.target},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    finally:
        server.kill()
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split(" ", 1)[1] for line in done.stdout.splitlines() if line.startswith("event ")]
    first, second = (
        found[1] for found in (re.search(rf"attempt {n}, (\S+) begins", done.stdout) for n in (1, 2)) if found
    )
    assert {first, second} == {"worker-1", "worker-2"}
    assert f"killed {first}; " in done.stdout
    # On a slow machine the first one may get further before it is killed.
    count = sum("attempt 1, " in line for line in said)
    assert said[:3] == [
        f"1 attempt 1, {first} begins",
        f"2 attempt 1, {first}: find a train",
        f"3 attempt 1, {first}: find a hotel",
    ]
    assert said[count] == f"{count + 1} attempt 2, {second} begins"
    assert [int(line.split()[0]) for line in said] == list(range(1, len(said) + 1))
    assert said[-2:] == [f"{len(said) - 1} attempt 2, {second}: write the plan", f"{len(said)} end: success"]
    assert "the run ended as success after 2 attempts" in done.stdout
    plan = [line.strip() for line in done.stdout.splitlines()[-4:]]
    assert plan == [
        f"{step} in Rome" for step in ("find a train", "find a hotel", "ask for the weather", "write the plan")
    ]
