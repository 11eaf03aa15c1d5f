"""The queue for one owner beside the queue for all: whoever claims, sweeps or fires, a run stays its owner's, and so does what it leaves.

In this process, where a tick can be made to come.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from storage_service.caller import Owner
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from storage_service.store.change import Put
from storage_service.store.tables import CRONS
from storage_service.store.where import Equals
from tests.service import METHODS, Api, DirectApi
from tests.tenants.matrix import Rows, base, everything, populate
from tests.tenants.scenarios import refused

# Earlier than what other tests leave, so that a call of all owners comes to it first.
_EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Store:
    """Each backend."""
    return stores[request.param]


@pytest.fixture
async def api(store: Store) -> Api:
    """The API, whose caller may leave the owner out; no cron of other tests is due."""
    api = DirectApi(build_pipeline(Settings(anonymous_rights="unscoped"), store), store.name)
    while (await api.call("FireDueCrons", limit=1000)).crons:
        pass
    return api


async def come(store: Store, rows: Rows) -> None:
    """Let the ticks of an owner's crons come."""
    for number, id in enumerate((rows.cron, f"{rows.cron}2")):
        tick = Timestamp()
        tick.FromDatetime(_EARLIEST + timedelta(days=number))
        changed = await store.seen_by(Owner(rows.owner)).update(
            CRONS, [Equals("cron_id", id)], [Put("next_run_date", tick)]
        )
        assert changed is not None


async def cron_runs(api: Api, rows: Rows) -> list[Any]:
    """An owner's runs that crons made."""
    runs = (await api.call("SearchRuns", owner_id=rows.owner, page_size=100)).runs
    return [run for run in runs if run.cron_id]


async def test_an_owners_ticks_are_its_own(api: Api, store: Store) -> None:
    victim, mine = await populate(api), await populate(api)
    await come(store, victim)
    before = await everything(api, victim)
    fire: dict[str, Any] = {"owner_id": mine.owner, "limit": 1000}
    assert not (await api.call("FireDueCrons", **fire)).crons
    assert (await api.call("GetRunStats", owner_id=mine.owner)).crons_due == 0
    assert await everything(api, victim) == before
    await come(store, mine)
    fired = (await api.call("FireDueCrons", **fire)).crons
    assert [one.cron_id for one in fired] == [mine.cron, f"{mine.cron}2"]
    assert await everything(api, victim) == before
    assert {run.run_id for run in await cron_runs(api, mine)} == {one.run_id for one in fired}
    stats = await api.call("GetRunStats", owner_id=victim.owner)
    assert stats.crons_due == 2


@pytest.mark.parametrize("thread", [True, False], ids=["thread-of-the-cron", "thread-of-the-run"])
async def test_a_run_is_its_crons_owners_whoever_fires(api: Api, store: Store, thread: bool) -> None:
    victim, mine = await populate(api), await populate(api)
    for rows in (victim, mine):
        for id in (rows.cron, f"{rows.cron}2"):
            await api.call("DeleteCron", owner_id=rows.owner, cron_id=id)
            place: dict[str, Any] = {"thread_id": rows.thread} if thread else {}
            cron: dict[str, Any] = {"cron_id": id, "assistant_id": rows.assistant, **place}
            await api.call("CreateCron", owner_id=rows.owner, **cron, schedule="0 0 1 1 *")
        await come(store, rows)
    fired = (await api.call("FireDueCrons", limit=4)).crons
    assert {one.cron_id for one in fired} == {id for rows in (victim, mine) for id in (rows.cron, f"{rows.cron}2")}
    for rows, other in ((victim, mine), (mine, victim)):
        runs = await cron_runs(api, rows)
        assert {run.cron_id for run in runs} == {rows.cron, f"{rows.cron}2"}
        assert {json.loads(run.metadata)["owner"] for run in runs} == {rows.owner}
        for run in runs:
            assert (await api.call("GetThread", owner_id=rows.owner, thread_id=run.thread_id)).thread.status == 2
            await refused("NOT_FOUND", api.call("GetRun", owner_id=other.owner, run_id=run.run_id))
            await refused("NOT_FOUND", api.call("GetThread", owner_id=other.owner, thread_id=run.thread_id))


async def test_a_tick_never_reaches_what_is_anothers(api: Api, store: Store) -> None:
    """A cron that names another owner's rows, as a row of record_only may before they are there, is switched off."""
    victim, mine = await populate(api), await populate(api)
    crons: dict[str, dict[str, Any]] = {
        mine.cron: {"thread_id": f"late-{victim.owner}", "assistant_id": mine.assistant},
        f"{mine.cron}2": {"assistant_id": f"late-{victim.owner}"},
    }
    for id, named in crons.items():
        await api.call("DeleteCron", owner_id=mine.owner, cron_id=id)
        own: dict[str, Any] = {"owner_id": mine.owner, "cron_id": id, "schedule": "0 0 1 1 *", "record_only": True}
        await api.call("CreateCron", **own, **named)
    shared: dict[str, Any] = {"visibility": "THREAD_VISIBILITY_READ_BY_ID"}
    await api.call("CreateThread", owner_id=victim.owner, thread_id=f"late-{victim.owner}", **shared)
    await api.call("CreateAssistant", owner_id=victim.owner, assistant_id=f"late-{victim.owner}", graph_id="agent")
    await come(store, mine)
    before = await everything(api, victim)
    # The one whose turn comes first, by its owner; the other with those of all.
    fired = [
        *(await api.call("FireDueCrons", owner_id=mine.owner, limit=1)).crons,
        *(await api.call("FireDueCrons", limit=1)).crons,
    ]
    assert [(one.cron_id, one.outcome, one.run_id, one.thread_id) for one in fired] == [(id, 4, "", "") for id in crons]
    for id in crons:
        cron = (await api.call("GetCron", owner_id=mine.owner, cron_id=id)).cron
        assert (cron.enabled, cron.HasField("next_run_date")) == (False, False)
    assert await cron_runs(api, mine) == []
    assert await everything(api, victim) == before


async def test_a_worker_of_all_owners_leaves_a_run_its_owners(api: Api) -> None:
    victim, mine = await populate(api), await populate(api)
    made: dict[str, Any] = {"thread_id": f"new-{victim.owner}", "if_not_exists": "IF_NOT_EXISTS_CREATE"}
    run_id = f"first-{victim.owner}"
    await api.call(
        "CreateRun",
        owner_id=victim.owner,
        **made,
        run_id=run_id,
        assistant_id=victim.assistant,
        run_after=_EARLIEST.isoformat(),
    )
    (claimed,) = (await api.call("ClaimRuns", worker_id="worker-of-all")).runs
    assert (claimed.run.run_id, claimed.owner_id) == (run_id, victim.owner)
    held: dict[str, Any] = {"run_id": run_id, "lease_token": claimed.lease_token}
    event: dict[str, Any] = {"events": [{"type": "t"}]}
    await api.call("AppendRunEvents", **held, **event, first_sequence=1)
    # The owner's own calls are as good, and another owner's none.
    await api.call("AppendRunEvents", owner_id=victim.owner, **held, **event, first_sequence=2)
    await api.call("HeartbeatRun", owner_id=victim.owner, **held)
    await refused("NOT_FOUND", api.call("HeartbeatRun", owner_id=mine.owner, **held))
    await refused("NOT_FOUND", api.stream("StreamRunEvents", owner_id=mine.owner, run_id=run_id))
    finished = (await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS", values='{"owner": "x"}')).run
    assert json.loads(finished.metadata)["owner"] == victim.owner
    thread = (await api.call("GetThread", owner_id=victim.owner, thread_id=made["thread_id"])).thread
    assert (thread.status, thread.values, json.loads(thread.metadata)) == (1, '{"owner": "x"}', {"owner": victim.owner})
    for call in (
        api.call("GetRun", owner_id=mine.owner, run_id=run_id),
        api.call("GetThread", owner_id=mine.owner, thread_id=made["thread_id"]),
        api.stream("StreamRunEvents", owner_id=mine.owner, run_id=run_id),
    ):
        await refused("NOT_FOUND", call)
    for owner in ({}, {"owner_id": victim.owner}):
        parts = await api.stream("StreamRunEvents", **owner, run_id=run_id)
        assert [event.type for part in parts for event in part.events] == ["t", "t", "end"]


async def test_a_sweep_of_all_owners_takes_back_those_of_each(api: Api) -> None:
    victim, mine = await populate(api), await populate(api)
    while (await api.call("SweepRuns", limit=1000)).requeued:
        pass
    for rows in (victim, mine):
        lapsed = (await api.call("GetRun", owner_id=rows.owner, run_id=rows.lapsed)).run
        assert (lapsed.status, lapsed.HasField("lease"), json.loads(lapsed.metadata)) == (
            1,
            False,
            {"owner": rows.owner},
        )
        assert (await api.call("GetRun", owner_id=rows.owner, run_id=rows.leased)).run.status == 2


async def test_what_nobody_owns_is_claimed_for_all_alone(api: Api) -> None:
    """A run without an owner is no owner's to claim, read or stop."""
    mine = await populate(api)
    run_id, thread_id = f"nobodys-{mine.owner}", f"nobodys-thread-{mine.owner}"
    assistant = f"nobodys-assistant-{mine.owner}"
    await api.call("CreateAssistant", assistant_id=assistant, graph_id="agent")
    run: dict[str, Any] = {"run_id": run_id, "thread_id": thread_id, "assistant_id": assistant}
    await api.call("CreateRun", **run, if_not_exists="IF_NOT_EXISTS_CREATE", run_after=_EARLIEST.isoformat())
    try:
        claimed = (await api.call("ClaimRuns", owner_id=mine.owner, worker_id="w", limit=100)).runs
        assert run_id not in {one.run.run_id for one in claimed}
        assert not (await api.call("CancelRuns", owner_id=mine.owner, run_ids=[run_id])).stopped_run_ids
        await refused("NOT_FOUND", api.stream("StreamRunEvents", owner_id=mine.owner, run_id=run_id))
        (taken,) = (await api.call("ClaimRuns", worker_id="w")).runs
        assert (taken.run.run_id, taken.owner_id) == (run_id, "")
        held: dict[str, Any] = {"run_id": run_id, "lease_token": taken.lease_token}
        await refused("NOT_FOUND", api.call("HeartbeatRun", owner_id=mine.owner, **held))
        assert (await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS")).run.status == 3
    finally:
        await api.call("DeleteThread", thread_id=thread_id)
        await api.call("DeleteAssistant", assistant_id=assistant)


@pytest.mark.parametrize(
    "method", sorted(name for name, of in METHODS.items() if of.containing_service.name == "RunService")
)
async def test_a_call_of_all_owners_takes_a_right(store: Store, method: str) -> None:
    api = DirectApi(build_pipeline(Settings(), store), store.name)
    rows = Rows("nobody")
    call = (api.stream if METHODS[method].server_streaming else api.call)(method, **base(method, rows))
    assert (await refused("OWNER_REQUIRED", call)).fields.keys() == {"owner_id"}
