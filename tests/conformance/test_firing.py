"""Crons whose tick has come: one run for each tick, and what becomes of those that were missed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from storage_service.caller import Owner
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Handle, Store
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import PostgresStore
from tests.conformance.queue import STATUS, Queue, reason
from tests.service import DirectApi

OUTCOMES = {1: "fired", 2: "skipped", 3: "rejected", 4: "disabled"}


class Crons(Queue):
    """An owner's crons, and the way to make a tick come."""

    def __init__(self, store: Store, owner: str, clock: list[datetime]) -> None:
        super().__init__(DirectApi(build_pipeline(Settings(anonymous_rights="unscoped"), store), store.name), owner)
        self.store = store
        self.clock = clock

    async def cron(self, **fields: Any) -> str:
        """A new cron that ticks at every full hour, and its id."""
        made = await self.call(
            "CreateCron", assistant_id=await self.assistant(), **({"schedule": "0 * * * *"} | fields)
        )
        return str(made.cron.cron_id)

    async def get(self, cron_id: str) -> Any:
        return (await self.call("GetCron", cron_id=cron_id)).cron

    async def come(self, cron_id: str, late: float = 1) -> datetime:
        """Let the next tick be so many seconds ago; gives it."""
        if isinstance(self.store, PostgresStore):
            async with await psycopg.AsyncConnection.connect(self.store.database.settings.url) as conn:
                cursor = await conn.execute(
                    "UPDATE langgraph_server.crons SET next_run_date = now() - make_interval(secs => %s)"
                    " WHERE id = %s RETURNING next_run_date",
                    (late, cron_id),
                )
                row = await cursor.fetchone()
                assert row is not None
                return row[0].astimezone(UTC)  # type: ignore[no-any-return]  # a row is Any
        tick = (await self.get(cron_id)).next_run_date.ToDatetime(UTC)
        self.clock[0] = tick + timedelta(seconds=late)
        return tick  # type: ignore[no-any-return]  # the message is Any

    async def fire(self, **fields: Any) -> list[Any]:
        return list((await self.call("FireDueCrons", **fields)).crons)

    async def runs(self) -> list[Any]:
        return list((await self.call("SearchRuns", page_size=100)).runs)


@pytest.fixture(params=["memory", "postgres"])
def crons(request: pytest.FixtureRequest, stores: dict[str, Store], owner: str) -> Crons:
    """The crons of a new owner."""
    clock = [datetime.now(UTC)]
    store = MemoryStore(lambda: clock[0]) if request.param == "memory" else stores["postgres"]
    return Crons(store, owner, clock)


async def test_a_tick_makes_one_run(crons: Crons) -> None:
    thread = await crons.thread()
    cron_id = await crons.cron(
        thread_id=thread, payload='{"input": {"n": 1}, "multitask_strategy": "interrupt"}', metadata='{"team": "a"}'
    )
    assert await crons.fire() == []
    assert (await crons.call("GetRunStats")).crons_due == 0
    tick = await crons.come(cron_id)
    assert (await crons.call("GetRunStats")).crons_due == 1
    (fired,) = await crons.fire()
    assert (fired.cron_id, OUTCOMES[fired.outcome], fired.thread_id) == (cron_id, "fired", thread)
    assert fired.tick.ToDatetime(UTC) == tick
    assert await crons.fire() == []
    (run,) = await crons.runs()
    assert (run.run_id, run.cron_id, run.cron_tick) == (fired.run_id, cron_id, fired.tick)
    assert (json.loads(run.kwargs)["input"], run.multitask_strategy) == ({"n": 1}, 3)
    assert json.loads(run.metadata) == {"team": "a", "owner": crons.owner}
    assert await crons.thread_status(thread) == "busy"
    following = (await crons.get(cron_id)).next_run_date.ToDatetime(UTC)
    now = await crons.store.now()
    assert now < following <= now + timedelta(hours=1)
    assert (following.minute, following.second) == (0, 0)
    (claimed,) = await crons.claim()
    assert claimed.run.run_id == run.run_id


async def test_a_tick_after_one_that_was_missed(crons: Crons) -> None:
    cron_id = await crons.cron(schedule="* * * * *", misfire_policy="MISFIRE_POLICY_SKIP")
    # Of the ticks since then, the last one came less than a minute ago.
    await crons.come(cron_id, 150)
    fired = [OUTCOMES[one.outcome] for _ in range(3) for one in await crons.fire()]
    assert fired == ["skipped", "fired"]


@pytest.mark.parametrize(
    ("policy", "late", "outcome"),
    [("SKIP", 5, "fired"), ("SKIP", 9000, "skipped"), ("COALESCE", 5, "fired"), ("COALESCE", 90000, "fired")],
)
async def test_ticks_that_were_missed(crons: Crons, policy: str, late: float, outcome: str) -> None:
    cron_id = await crons.cron(schedule="0 0 1 1 *", misfire_policy=f"MISFIRE_POLICY_{policy}")
    await crons.come(cron_id, late)
    (fired,) = await crons.fire()
    assert OUTCOMES[fired.outcome] == outcome
    assert await crons.fire() == []
    assert len(await crons.runs()) == (outcome == "fired")
    assert (await crons.get(cron_id)).next_run_date.ToDatetime(UTC) > await crons.store.now()


@pytest.mark.parametrize("end", ["finished", "cancelled", "rolled back"])
@pytest.mark.parametrize(("policy", "is_kept"), [("DELETE", False), ("KEEP", True)])
async def test_a_thread_of_the_run_s_own(crons: Crons, policy: str, is_kept: bool, end: str) -> None:
    cron_id = await crons.cron(on_run_completed=f"ON_RUN_COMPLETED_{policy}")
    await crons.come(cron_id)
    (fired,) = await crons.fire()
    assert await crons.thread_status(fired.thread_id) == "busy"

    def rows() -> Handle:
        # One for each operation.
        return crons.store.seen_by(Owner(crons.owner))

    assert await rows().sweep_threads_of_crons(10, 0) == 0
    if end == "finished":
        (claimed,) = await crons.claim()
        assert STATUS[(await crons.finish(claimed)).run.status] == "success"
    else:
        action = "CANCEL_ACTION_ROLLBACK" if end == "rolled back" else "CANCEL_ACTION_INTERRUPT"
        await crons.call("CancelRuns", run_ids=[fired.run_id], action=action)
    assert await rows().sweep_threads_of_crons(10, 60) == 0
    assert await crons.thread_status(fired.thread_id) == "idle"
    # Somebody else's run on it keeps it.
    run_id = await crons.admit(fired.thread_id)
    crons.clock[0] += timedelta(seconds=1)
    assert await rows().sweep_threads_of_crons(10, 0) == 0
    await crons.call("CancelRuns", run_ids=[run_id])
    crons.clock[0] += timedelta(seconds=1)
    assert await rows().sweep_threads_of_crons(10, 0) == (not is_kept)
    if is_kept:
        assert await crons.thread_status(fired.thread_id) == "idle"
    else:
        assert await reason(crons.thread_status(fired.thread_id)) == "NOT_FOUND"


@pytest.mark.parametrize(("strategy", "outcome"), [("reject", "rejected"), ("enqueue", "fired"), ("unknown", "fired")])
async def test_a_thread_that_is_busy(crons: Crons, strategy: str, outcome: str) -> None:
    thread = await crons.thread()
    await crons.admit(thread)
    cron_id = await crons.cron(thread_id=thread, payload=json.dumps({"multitask_strategy": strategy}))
    await crons.come(cron_id)
    (fired,) = await crons.fire()
    assert (OUTCOMES[fired.outcome], bool(fired.run_id)) == (outcome, outcome == "fired")
    assert await crons.fire() == []
    assert len(await crons.runs()) == 1 + (outcome == "fired")


async def test_a_cron_whose_assistant_is_not_there(crons: Crons) -> None:
    made = await crons.call("CreateCron", assistant_id="absent", schedule="0 * * * *", record_only=True)
    await crons.come(made.cron.cron_id)
    (fired,) = await crons.fire()
    assert OUTCOMES[fired.outcome] == "disabled"
    cron = await crons.get(made.cron.cron_id)
    assert (cron.enabled, cron.HasField("next_run_date")) == (False, False)
    assert await crons.runs() == []
    # Nor is a thread left that was made for the run.
    assert (await crons.call("CountThreads")).count == 0


async def test_the_end_of_a_cron(crons: Crons) -> None:
    now = await crons.store.now()
    cron_id = await crons.cron(end_time=(now + timedelta(minutes=61)).isoformat().replace("+00:00", "Z"))
    await crons.come(cron_id)
    await crons.fire()
    cron = await crons.get(cron_id)
    over = not cron.HasField("next_run_date")
    # On the hour's very end there may be one more tick within the time.
    assert over or cron.next_run_date.ToMicroseconds() <= cron.end_time.ToMicroseconds()
    await crons.call("UpdateCron", cron_id=cron_id, clear_end_time=True)
    assert (await crons.get(cron_id)).HasField("next_run_date")


async def test_a_cron_that_is_off(crons: Crons) -> None:
    cron_id = await crons.cron()
    await crons.call("UpdateCron", cron_id=cron_id, enabled=False)
    if isinstance(crons.store, PostgresStore):
        await crons.come(cron_id)
    else:
        crons.clock[0] += timedelta(hours=2)
    assert await crons.fire() == []


async def test_whose_crons_fire(crons: Crons, other: str) -> None:
    stranger = Crons(crons.store, other, crons.clock)
    cron_id = await crons.cron()
    tick = await crons.come(cron_id)
    assert await stranger.fire() == []
    fired = [one for one in (await crons.api.call("FireDueCrons", limit=1000)).crons if one.cron_id == cron_id]
    assert [one.tick.ToDatetime(UTC) for one in fired] == [tick]
    (run,) = await crons.runs()
    assert json.loads(run.metadata)["owner"] == crons.owner
    assert await stranger.runs() == []
