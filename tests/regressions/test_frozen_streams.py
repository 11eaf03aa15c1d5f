"""A stream ends when its time is over, also while Postgres keeps its connections open and answers nothing."""

from __future__ import annotations

import time

import pytest

from tests.faults.cluster import freeze, thaw
from tests.postgres_server import PostgresServer
from tests.regressions.conftest import Bench
from tests.service import CallFailed

_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_a_stream_from_a_frozen_database_ends_in_time(
    hasty: Bench, owner: str, postgres_server: PostgresServer
) -> None:
    await hasty.api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value="1")
    pids = [int(pid) for (pid,) in await (await hasty.connection.execute(_SESSIONS)).fetchall()]
    assert pids
    # Nor does the process answer that would make new ones.
    pids.append(int((postgres_server.directory / "postmaster.pid").read_text().split()[0]))
    try:
        for pid in pids:
            freeze(pid)
        started = time.monotonic()
        with pytest.raises(CallFailed) as ended:
            await hasty.api.stream("ExportOwner", owner_id=owner)
        seconds = time.monotonic() - started
    finally:
        for pid in pids:
            thaw(pid)
    assert (ended.value.code.name, ended.value.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    # The limit of these streams is 1 s.
    assert 0.9 < seconds < 1.7
