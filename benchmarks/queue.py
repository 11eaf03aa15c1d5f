"""How long claiming a run takes beside many that have ended, many that are blocked, and a transaction that stays open.

``python -m benchmarks.queue`` fills two databases of one Postgres, claims in each in turn, and fails when the 99th percentile beside the
many is twice that beside the few. What is measured is the store's call, which is one statement: no gRPC, and no waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import AsyncRawCursor, sql
from psycopg.conninfo import make_conninfo

from agentstorage.v1.runs_pb2 import RUN_STATUS_SUCCESS
from agentstorage.v1.threads_pb2 import THREAD_STATUS_IDLE
from benchmarks import postgres
from benchmarks.load import percentile
from storage_service.caller import AllOwners, Owner, Scope
from storage_service.store.postgres import DatabaseSettings, PostgresStore

_OWNER: Final = "owner-7"
_METADATA: Final = "jsonb_build_object('owner', 'owner-' || n % 1000)"
_MINE: Final = f"""'{{"owner": "{_OWNER}"}}'"""
_COLUMNS: Final = "INSERT INTO langgraph_server.runs (id, thread_id, assistant_id, status, metadata, run_after"
_ENDED: Final = (
    f"{_COLUMNS}, attempt, finished_at) SELECT 'ended-' || n, 'thread-' || n % 100000, 'a', 'success', {_METADATA},"  # noqa: S608 - of constants
    " now() - n * interval '1 second', 1, now() FROM generate_series(1, $1) AS n"
)
_LEASED: Final = (
    f"{_COLUMNS}, attempt, worker_id, lease_token, lease_expires_at) SELECT 'leased-' || n, 'blocked-' || n, 'a', 'running', {_MINE},"  # noqa: S608 - of constants
    " now() - interval '3 days', 1, 'w', n, now() + interval '1 day' FROM generate_series(0, 99) AS n"
)
# Marked as admission marks them.
_BLOCKED: Final = (
    f"{_COLUMNS}, waits_behind) SELECT 'blocked-' || n, 'blocked-' || n % 100, 'a', 'pending', {_MINE},"  # noqa: S608 - of constants
    " now() - interval '2 days' + n * interval '1 millisecond', true FROM generate_series(1, $1) AS n"
)
_DUE: Final = (
    f"{_COLUMNS}) SELECT $1::text || '-' || n, $1::text || '-' || n, 'a', 'pending', {_MINE}, now()"  # noqa: S608 - of constants
    " FROM generate_series(1, $2) AS n"
)
#: What the 99th percentile beside many ended runs is to stay below, as a multiple of that beside few.
MOST_RATIO: Final = 2.0
# Claims of a round, which the databases take in turn.
_ROUND: Final = 25


@dataclass
class Side:
    """A database with its runs, and the times of what was done in it, in seconds."""

    name: str
    store: PostgresStore
    connection: psycopg.AsyncConnection[Any]
    claims: dict[str, list[float]] = field(default_factory=dict)
    _rounds: int = 0

    async def round(self, what: str, scope: Scope) -> None:
        """Queue some runs of threads of their own, and claim and end each."""
        self._rounds += 1
        place = f"{what}-{self._rounds}"
        await self.connection.execute(_DUE.encode(), (place, _ROUND))
        rows = self.store.seen_by(scope)
        times = self.claims.setdefault(what, [])
        for _ in range(_ROUND):
            began = time.perf_counter()
            (claimed,) = await rows.claim_runs("w", 1, 60)
            times.append(time.perf_counter() - began)
            await rows.finish_run(
                claimed.run.run_id, claimed.lease_token, RUN_STATUS_SUCCESS, "", THREAD_STATUS_IDLE, ()
            )

    def figures(self) -> dict[str, dict[str, float]]:
        """The percentiles of each measurement, in milliseconds."""
        return {
            what: {f"p{part}": round(percentile(sorted(times), part) * 1000, 3) for part in (50, 95, 99)}
            | {"claims": len(times)}
            for what, times in self.claims.items()
        }


@asynccontextmanager
async def _side(url: str, name: str, ended: int) -> AsyncIterator[Side]:
    """A new database of a Postgres with so many runs that have ended."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        await admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    own = make_conninfo(url, dbname=name)
    store = PostgresStore(DatabaseSettings(own))
    await store.start(60)
    try:
        async with await psycopg.AsyncConnection.connect(
            own, autocommit=True, cursor_factory=AsyncRawCursor
        ) as connection:
            await connection.execute(_ENDED.encode(), (ended,))
            await connection.execute("VACUUM (ANALYZE) langgraph_server.runs")
            yield Side(name, store, connection)
    finally:
        await store.close()


async def measure(ended: int, claims: int, blocked: int) -> dict[str, Any]:
    """Everything, by what it was measured beside."""
    rounds = -(-claims // _ROUND)
    with tempfile.TemporaryDirectory() as directory:
        async with (
            postgres.running(Path(directory), True) as database,
            _side(database.url, "few", 1000) as few,
            _side(database.url, "many", ended) as many,
        ):
            for what, scope in (("an owner's claim", Owner(_OWNER)), ("a claim of all owners", AllOwners())):
                for side in (few, many):
                    await side.round("warm-up", scope)
                for number in range(rounds):
                    # Which one is first changes, and what disturbs the machine meets both.
                    for side in (few, many) if number % 2 else (many, few):
                        await side.round(what, scope)
            await _beside_an_old_snapshot(few, make_conninfo(database.url, dbname="few"), rounds)
            await few.connection.execute(_LEASED.encode())
            await few.connection.execute(_BLOCKED.encode(), (blocked,))
            for _ in range(max(1, rounds // 4)):
                await few.round(f"behind {blocked} blocked runs", Owner(_OWNER))
            found = {side.name: side.figures() for side in (few, many)}
            version = database.version
    both = found["few"].keys() & found["many"].keys() - {"warm-up"}
    ratios = {what: round(found["many"][what]["p99"] / found["few"][what]["p99"], 2) for what in sorted(both)}
    return {"postgres": version, "ended": {"few": 1000, "many": ended}, "ms": found, "ratios of p99": ratios}


async def _beside_an_old_snapshot(side: Side, url: str, rounds: int) -> None:
    """Claims while a transaction is open that may still read what was there before: nothing of it can be cleared away."""
    async with await psycopg.AsyncConnection.connect(url) as reader:
        await reader.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        await reader.execute("SELECT count(*) FROM langgraph_server.threads")
        for _ in range(rounds):
            await side.round("beside an open snapshot", Owner(_OWNER))


def main() -> None:
    """Measure, print, and fail when claims are slower beside many runs that have ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue", description=__doc__)
    parser.add_argument("--ended", type=int, default=1_000_000, help="runs that have ended, in the larger database")
    parser.add_argument("--claims", type=int, default=2000, help="claims of each measurement")
    parser.add_argument("--blocked", type=int, default=10_000, help="runs that wait for others of their threads")
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.ended, arguments.claims, arguments.blocked))
    print(json.dumps(results, indent=1))
    if worst := [what for what, ratio in results["ratios of p99"].items() if ratio >= MOST_RATIO]:
        sys.exit(f"slower beside many runs that have ended: {', '.join(worst)}")


if __name__ == "__main__":
    main()
