"""What the matrix does not say of the queue: the tokens, threads, events and checkpoints of others."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from tests.service import Api
from tests.tenants.matrix import everything, populate
from tests.tenants.scenarios import Scenario, refused

_SHARED: dict[str, Any] = {"visibility": "THREAD_VISIBILITY_READ_BY_ID"}
_HELD: dict[str, dict[str, Any]] = {
    "HeartbeatRun": {},
    "ReleaseRun": {},
    "FinishRun": {"status": "RUN_STATUS_ERROR", "values": '{"stolen": 1}'},
    "AppendRunEvents": {"first_sequence": 3, "events": [{"type": "stolen"}]},
}
#: A stream that goes on says nothing more in this time.
_MOMENT = 0.5


async def goes_on(api: Api, **fields: Any) -> None:
    """Assert that a stream of events neither fails nor ends."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(api.stream("StreamRunEvents", **fields), _MOMENT)


async def events_of(api: Api, owner: str, run_id: str) -> list[tuple[int, str, str]]:
    """The events of a run that has ended, as an owner sees them."""
    parts = await api.stream("StreamRunEvents", owner_id=owner, run_id=run_id)
    return [(event.sequence, event.run_id, event.type) for part in parts for event in part.events]


async def tokens(api: Api) -> None:
    """The right token of another owner's lease opens nothing, and one's own none of another's; a run's own does not lapse by that."""
    victim, mine = await populate(api), await populate(api)
    before = await everything(api, victim)
    for method, more in _HELD.items():
        for run, token in ((victim.leased, victim.token), (victim.leased, mine.token), (victim.lapsed, victim.token)):
            held: dict[str, Any] = {"owner_id": mine.owner, "run_id": run, "lease_token": token}
            failure = await refused("NOT_FOUND", api.call(method, **held, **more))
            assert failure.metadata == {"resource": "run", "id": run}
        own: dict[str, Any] = {"owner_id": mine.owner, "run_id": mine.leased, "lease_token": victim.token}
        await refused("LEASE_LOST", api.call(method, **own, **more))
    assert await everything(api, victim) == before
    # Both workers go on.
    for rows in (victim, mine):
        held = {"owner_id": rows.owner, "run_id": rows.leased, "lease_token": rows.token}
        await api.call("AppendRunEvents", **held, first_sequence=3, events=[{"type": "t"}])
        assert (await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS")).run.status == 3


async def claims_and_sweeps(api: Api) -> None:
    """An owner's claims, sweeps and ticks take nothing of another's, however much of that is due."""
    victim, mine = await populate(api), await populate(api)
    before = await everything(api, victim)
    claimed = (await api.call("ClaimRuns", owner_id=mine.owner, worker_id=victim.worker, limit=100)).runs
    assert sorted((one.run.run_id, one.owner_id) for one in claimed) == sorted(
        (run, mine.owner) for run in (mine.run, f"{mine.run}2")
    )
    swept = await api.call("SweepRuns", owner_id=mine.owner, limit=1000)
    assert (swept.requeued, swept.failed, swept.stopped) == (1, 0, 0)
    assert not (await api.call("FireDueCrons", owner_id=mine.owner, limit=1000)).crons
    # What an owner that has nothing finds.
    nobody: dict[str, Any] = {"owner_id": f"o{uuid.uuid4().hex[:12]}"}
    assert not (await api.call("ClaimRuns", **nobody, worker_id=victim.worker, limit=100, wait_seconds=0.05)).runs
    stats = await api.call("GetRunStats", **nobody)
    assert stats == type(stats)(claims=stats.claims)
    assert await everything(api, victim) == before
    stats = await api.call("GetRunStats", owner_id=victim.owner)
    assert (stats.due, stats.leased, sum(of.count for of in stats.runs)) == (2, 2, 5)


async def shared_events(api: Api) -> None:
    """READ_BY_ID: who knows the id of a thread or a run reads its runs and events, waits for their end, and changes nothing."""
    victim, mine = await populate(api), await populate(api)
    known = {victim.desk: victim.leased, victim.shelf: victim.ended}
    reads: dict[str, Any] = {"owner_id": mine.owner}
    for thread, run in known.items():
        await refused("NOT_FOUND", api.stream("StreamRunEvents", **reads, run_id=run))
        await refused("NOT_FOUND", api.stream("StreamRunEvents", **reads, thread_id=thread, after=-1))
        await refused("NOT_FOUND", api.call("WaitRun", **reads, run_id=run, wait_seconds=5))
        await api.call("UpdateThread", owner_id=victim.owner, thread_id=thread, **_SHARED)
    before = await everything(api, victim)
    told = [(1, victim.ended, "t"), (2, victim.ended, victim.owner), (3, victim.ended, "end")]
    assert await events_of(api, mine.owner, victim.ended) == told == await events_of(api, victim.owner, victim.ended)
    for after in (0, -1):
        await goes_on(api, **reads, run_id=victim.leased, after=after)
        await goes_on(api, **reads, thread_id=victim.shelf, after=after)
    waited = await api.call("WaitRun", **reads, run_id=victim.leased, wait_seconds=0.05)
    assert (waited.run.status, waited.run.lease.worker_id) == (2, victim.worker)
    assert (await api.call("WaitRun", **reads, run_id=victim.ended, wait_seconds=20)).run.status == 3
    for thread, run in known.items():
        for method, more in _HELD.items():
            held: dict[str, Any] = {**reads, "run_id": run, "lease_token": victim.token}
            await refused("NOT_FOUND", api.call(method, **held, **more))
        for action in ("CANCEL_ACTION_INTERRUPT", "CANCEL_ACTION_ROLLBACK"):
            await refused("NOT_FOUND", api.call("CancelRuns", **reads, thread_id=thread, action=action))
            stopped = await api.call("CancelRuns", **reads, run_ids=[run], action=action)
            assert stopped == type(stopped)()
    taken = await api.call("ClaimRuns", **reads, worker_id=mine.worker, limit=100)
    assert victim.owner not in str(taken)
    assert await everything(api, victim) == before
    # Private again, it is closed to those who read it before.
    await api.call(
        "UpdateThread", owner_id=victim.owner, thread_id=victim.shelf, visibility="THREAD_VISIBILITY_PRIVATE"
    )
    await refused("NOT_FOUND", api.stream("StreamRunEvents", **reads, run_id=victim.ended))


async def made_threads(api: Api) -> None:
    """A run makes a thread that is nowhere; another owner's thread, shared or not, is NOT_FOUND and no run's."""
    victim, mine = await populate(api), await populate(api)
    await api.call("UpdateThread", owner_id=victim.owner, thread_id=victim.desk, **_SHARED)
    before, own = await everything(api, victim), await everything(api, mine)
    makes: dict[str, Any] = {"owner_id": mine.owner, "if_not_exists": "IF_NOT_EXISTS_CREATE", "run_id": mine.new}
    for strategy in ("REJECT", "ENQUEUE", "INTERRUPT", "ROLLBACK"):
        how: dict[str, Any] = {**makes, "multitask_strategy": f"MULTITASK_STRATEGY_{strategy}"}
        for thread in (victim.thread, victim.desk):
            call = api.call("CreateRun", **how, thread_id=thread, assistant_id=mine.assistant)
            assert (await refused("NOT_FOUND", call)).metadata == {"resource": "thread", "id": thread}
        # Nor is a thread made for a run that may not be.
        call = api.call("CreateRun", **how, thread_id=f"new-{mine.owner}", assistant_id=victim.assistant)
        assert (await refused("NOT_FOUND", call)).metadata == {"resource": "assistant", "id": victim.assistant}
    assert await everything(api, mine) == own
    await api.call("CreateRun", **makes, thread_id=f"new-{mine.owner}", assistant_id=mine.assistant)
    thread = (await api.call("GetThread", owner_id=mine.owner, thread_id=f"new-{mine.owner}")).thread
    assert json.loads(thread.metadata)["owner"] == mine.owner
    await refused("NOT_FOUND", api.call("GetThread", owner_id=victim.owner, thread_id=thread.thread_id))
    assert await everything(api, victim) == before


async def runs_beside_those_of_others(api: Api) -> None:
    """Another owner's run that names the thread is none of it: it stops no claim, is not stopped with it, and its end frees nothing."""
    victim, mine = await populate(api), await populate(api)
    thread = f"thread-{uuid.uuid4().hex}"
    waits: dict[str, Any] = {"owner_id": victim.owner, "thread_id": thread, "assistant_id": "any", "record_only": True}
    for number in range(3):
        await api.call("CreateRun", **waits, run_id=f"waits-{number}-{victim.owner}", status="RUN_STATUS_RUNNING")
    before = await everything(api, victim)
    own: dict[str, Any] = {"owner_id": mine.owner, "thread_id": thread}
    await api.call("CreateThread", **own, **_SHARED)
    for strategy in ("ENQUEUE", "INTERRUPT", "ROLLBACK"):
        how: dict[str, Any] = {"assistant_id": mine.assistant, "multitask_strategy": f"MULTITASK_STRATEGY_{strategy}"}
        made = (await api.call("CreateRun", **own, **how, run_after="2000-01-01T00:00:00Z")).run.run_id
    claimed = (await api.call("ClaimRuns", owner_id=mine.owner, worker_id=mine.worker)).runs
    assert [one.run.run_id for one in claimed] == [made]
    for action in ("CANCEL_ACTION_INTERRUPT", "CANCEL_ACTION_ROLLBACK"):
        asked = await api.call("CancelRuns", **own, action=action)
        assert (list(asked.stopped_run_ids), list(asked.asked_run_ids)) == ([], [made])
    await api.call("ReleaseRun", owner_id=mine.owner, run_id=made, lease_token=claimed[0].lease_token)
    # Nothing of the thread's own is in flight.
    assert (await api.call("GetThread", **own)).thread.status == 1
    assert await everything(api, victim) == before
    # A runtime of mine says that the thread is busy: that another owner's runs end is nothing to it.
    await api.call("UpdateThread", **own, status="THREAD_STATUS_BUSY")
    names = [f"waits-{number}-{victim.owner}" for number in range(3)]
    for name, action in zip(names, ("CANCEL_ACTION_INTERRUPT", "CANCEL_ACTION_ROLLBACK"), strict=False):
        stopped = await api.call("CancelRuns", owner_id=victim.owner, run_ids=[name], action=action)
        assert list(stopped.stopped_run_ids) == [name]
    await api.call("DeleteRun", owner_id=victim.owner, run_id=names[2])
    assert (await api.call("GetThread", **own)).thread.status == 2


async def checkpoints_of_runs_that_are_undone(api: Api) -> None:
    """Undoing a run deletes its checkpoints, but none that another owner's thread has under the run's id, be it the run's or not."""
    victim, mine = await populate(api), await populate(api)
    own: dict[str, Any] = {"owner_id": victim.owner}
    # A run that was recorded before there was a thread of the name: the thread is the other owner's now.
    astray: dict[str, Any] = {"run_id": f"astray-{mine.owner}", "thread_id": f"taken-{victim.owner}"}
    await api.call("CreateRun", owner_id=mine.owner, **astray, assistant_id=mine.assistant, record_only=True)
    await api.call("CreateThread", **own, thread_id=astray["thread_id"])
    for run in (mine.run, mine.leased, f"{mine.run}2", astray["run_id"]):
        for thread in (victim.thread, astray["thread_id"]):
            place = {**own, "thread_id": thread, "checkpoint_id": f"of-{run}", "checkpoint": "{}"}
            await api.call("PutCheckpoint", **place, metadata=json.dumps({"run_id": run}))
    before = await everything(api, victim)
    rollback: dict[str, Any] = {"owner_id": mine.owner, "action": "CANCEL_ACTION_ROLLBACK"}
    runs = [mine.run, mine.leased, astray["run_id"], victim.run, victim.leased]
    stopped = await api.call("CancelRuns", **rollback, run_ids=runs)
    assert set(stopped.stopped_run_ids) == {mine.run, astray["run_id"]}
    assert list(stopped.asked_run_ids) == [mine.leased]
    held: dict[str, Any] = {"owner_id": mine.owner, "run_id": mine.leased, "lease_token": mine.token}
    assert not (await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS")).HasField("run")
    second: dict[str, Any] = {"thread_id": f"{mine.thread}2", "assistant_id": mine.assistant}
    await api.call(
        "CreateRun", owner_id=mine.owner, **second, multitask_strategy="MULTITASK_STRATEGY_ROLLBACK", run_id=mine.new
    )
    for run in (mine.run, mine.leased, f"{mine.run}2", astray["run_id"]):
        await refused("NOT_FOUND", api.call("GetRun", owner_id=mine.owner, run_id=run))
    # The checkpoints of populate() name its first run; those of another thread than the run's stay.
    parts = await api.stream("ListCheckpoints", owner_id=mine.owner)
    assert {part.checkpoint.thread_id for part in parts} == {f"{mine.thread}2"}
    assert await everything(api, victim) == before


async def ids_of_runs_that_are_taken(api: Api) -> None:
    """A queued run of another owner's id is ALREADY_EXISTS, and whatever its strategy stops stays."""
    victim, mine = await populate(api), await populate(api)
    before, own = await everything(api, victim), await everything(api, mine)
    refers: dict[str, Any] = {"thread_id": mine.thread, "assistant_id": mine.assistant}
    for strategy in ("ENQUEUE", "INTERRUPT", "ROLLBACK"):
        how: dict[str, Any] = {"owner_id": mine.owner, **refers, "multitask_strategy": f"MULTITASK_STRATEGY_{strategy}"}
        for run in (victim.run, victim.leased, victim.ended):
            await refused("ALREADY_EXISTS", api.call("CreateRun", **how, run_id=run))
    assert await everything(api, mine) == own
    assert await everything(api, victim) == before


QUEUE_SCENARIOS: tuple[Scenario, ...] = (
    tokens,
    claims_and_sweeps,
    shared_events,
    made_threads,
    runs_beside_those_of_others,
    checkpoints_of_runs_that_are_undone,
    ids_of_runs_that_are_taken,
)
