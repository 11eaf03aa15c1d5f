"""Many runs that are asked for at once, while workers claim: each strategy keeps its word, and a thread has one leased run at most.

For longer: ``ADMISSION_ROUNDS=50 pytest tests/faults/test_admission_faults.py``; ``ADMISSION_SEED`` repeats what a run draws.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.queue_campaign import ASSISTANT, Campaign, leases_by_run
from tests.faults.queue_histories import Asked, check_admitted, check_leases, check_log, leases_of
from tests.faults.queue_workers import crew
from tests.faults.servers import Record, Serve, troubles
from tests.faults.test_queue_faults import SERVER, campaign_at
from tests.postgres_server import MakeDatabase
from tests.service import CallFailed, ServerProcess

ROUNDS = int(os.environ.get("ADMISSION_ROUNDS", "1"))
AT_ONCE, THREADS = 64, 4
STRATEGIES = ("REJECT", "ENQUEUE", "INTERRUPT", "ROLLBACK")
MOST_SECONDS = 60.0
pytestmark = [
    pytest.mark.parametrize("backend", ["memory", "postgres"]),
    pytest.mark.timeout(ROUNDS * MOST_SECONDS + 120),
]


@pytest.fixture
async def admitting(backend: str, serve: Serve, make_database: MakeDatabase) -> ServerProcess:
    """A server whose leases are looked after."""
    return await serve("" if backend == "memory" else make_database(), environment=SERVER)


async def ask(campaign: Campaign, thread: str, strategy: str, request_id: str = "") -> Asked:
    """Ask for a run with an id of its own, or that of a request_id."""
    run_id = "" if request_id else uuid.uuid4().hex
    try:
        made = await campaign.call(
            "CreateRun",
            run_id=run_id,
            thread_id=thread,
            assistant_id=ASSISTANT,
            multitask_strategy=f"MULTITASK_STRATEGY_{strategy}",
            request_id=request_id,
        )
    except CallFailed as failure:
        if failure.reason != "THREAD_BUSY":
            raise
        return Asked(run_id, thread, strategy, False)
    return Asked(made.run.run_id, thread, strategy, True)


async def named_runs(campaign: Campaign) -> set[str]:
    """The runs that anything names but their own rows: events and checkpoints."""
    found: set[str] = set()
    for part in await campaign.stream("ExportOwner"):
        found.update(event.run_id for event in part.run_events)
    for part in await campaign.stream("ListCheckpoints", summary=True):
        found.add(str(json.loads(part.checkpoint.metadata)["run_id"]))
    return found


async def test_all_strategies_at_once(
    backend: str, admitting: ServerProcess, tmp_path: Path, record_property: Record
) -> None:
    seed = int(os.environ.get("ADMISSION_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    # No lease lapses: a worker that goes on after that may leave a checkpoint, which no token guards.
    arguments = ["--lease", "60", "--workers", "4", "--checkpoints"]
    asked: list[Asked] = []
    async with (
        campaign_at([admitting], dice) as campaign,
        crew(tmp_path, [admitting.target], arguments, 2, dice) as workers,
    ):
        campaign.apis[0].timeout = 20
        threads = await campaign.prepare(THREADS)
        for _ in range(ROUNDS):
            asked += await asyncio.gather(
                *(
                    ask(campaign, thread, strategy)
                    for _ in range(AT_ONCE)
                    for thread, strategy in zip(
                        threads, dice.choices(STRATEGIES, (6, 24, 1, 1), k=THREADS), strict=True
                    )
                )
            )
            await campaign.until_ended(MOST_SECONDS)
        await workers.stop()
        leases = leases_of(workers.leased_entries())
        ended = await campaign.ended()
        wrong = check_leases(leases)
        named = await named_runs(campaign)
        wrong += check_admitted(asked, {run.run for run in ended}, named)
        of_runs = leases_by_run(leases)
        # What was worked on is named: what is gone would be too, had it not been undone.
        assert named >= {run.run for run in ended} & of_runs.keys() != set()
        for run in ended:
            wrong += check_log(run, of_runs.get(run.run, ()))
        wrong += [f"{thread} is BUSY" for thread, status in (await campaign.threads()).items() if status == 2]
    assert wrong == [], (seed, wrong[:20])
    assert troubles(admitting.log) == []
    record_property("seed", seed)
    record_property("asked", len(asked))
    record_property("admitted", sum(one.was_admitted for one in asked))
    record_property("rolled back", sum(one.was_admitted for one in asked) - len(ended))
    record_property("leases", len(leases))


async def test_of_many_that_reject_one_is_admitted(backend: str, admitting: ServerProcess) -> None:
    async with campaign_at([admitting], random.Random(1)) as campaign:
        threads = await campaign.prepare(THREADS)
        asked = await asyncio.gather(*(ask(campaign, thread, "REJECT") for _ in range(AT_ONCE) for thread in threads))
        assert _admitted(asked, threads) == [1] * THREADS
        kept = [run.run_id for run in await campaign.all("SearchRuns", "runs")]
        assert sorted(kept) == sorted(one.run for one in asked if one.was_admitted)


async def test_a_request_id_makes_one_run(backend: str, admitting: ServerProcess) -> None:
    async with campaign_at([admitting], random.Random(1)) as campaign:
        reject, *threads = await campaign.prepare(THREADS)
        # All of one request of REJECT are answered the run that one of them made, which keeps none of them out.
        again = await asyncio.gather(*(ask(campaign, reject, "REJECT", request_id="once") for _ in range(AT_ONCE)))
        assert _admitted(again, [reject]) == [AT_ONCE]
        asked = await asyncio.gather(
            *(
                ask(campaign, thread, strategy, request_id=f"{thread}/{strategy}/{number}")
                for _ in range(AT_ONCE // 8)
                for number in range(4)
                for thread, strategy in zip(threads, ("ENQUEUE", "INTERRUPT", "ENQUEUE"), strict=True)
            )
        )
        assert all(one.was_admitted for one in asked)
        kept = [run.run_id for run in await campaign.all("SearchRuns", "runs")]
        assert len(kept) == 1 + 4 * len(threads)
        assert set(kept) == {one.run for one in [*again, *asked]}


def _admitted(asked: Sequence[Asked], threads: Sequence[str]) -> list[int]:
    return [sum(one.was_admitted for one in asked if one.thread == thread) for thread in threads]
