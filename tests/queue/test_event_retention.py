"""Events of runs that ended long ago are deleted, and who asks for them is told so."""

from __future__ import annotations

import asyncio

import pytest

from storage_service.caller import Owner
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from tests.conformance.queue import Queue, held
from tests.service import CallFailed, DirectApi


async def ended(queue: Queue, thread: str) -> str:
    """A run that ended with two events and its end marker."""
    await queue.admit(thread)
    (claimed,) = await queue.claim()
    await queue.call("AppendRunEvents", **held(claimed), first_sequence=1, events=[{"type": "a"}, {"type": "b"}])
    await queue.finish(claimed)
    return str(claimed.run.run_id)


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_old_events(stores: dict[str, Store], owner: str, backend: str) -> None:
    store = stores[backend]
    queue = Queue(DirectApi(build_pipeline(Settings(), store), backend), owner)
    rows = store.seen_by(Owner(owner))
    thread = await queue.thread()
    old = [await ended(queue, thread) for _ in range(2)]
    assert await rows.sweep_events(10, 3600) == 0
    await asyncio.sleep(0.3)
    young = await ended(queue, thread)
    await queue.admit(thread)
    (at_work,) = await queue.claim()
    await queue.call("AppendRunEvents", **held(at_work), first_sequence=1, events=[{"type": "a"}])
    assert await store.seen_by(Owner(f"other-{owner}")).sweep_events(10, 0.2) == 0
    assert [await rows.sweep_events(1, 0.2) for _ in range(3)] == [3, 3, 0]

    for run_id in old:
        with pytest.raises(CallFailed) as failure:
            await queue.api.stream("StreamRunEvents", owner_id=owner, run_id=run_id)
        assert failure.value.code.name == "OUT_OF_RANGE"
        assert (failure.value.reason, failure.value.metadata["first"]) == ("EVENTS_DELETED", "3")
        # Who has seen all of it gets its end.
        (end,) = await queue.api.stream("StreamRunEvents", owner_id=owner, run_id=run_id, after=3)
        assert end.run.run_id == run_id
    with pytest.raises(CallFailed) as failure:
        await queue.api.stream("StreamRunEvents", owner_id=owner, thread_id=thread)
    assert failure.value.reason == "EVENTS_DELETED"
    first = int(failure.value.metadata["first"])
    found = await queue.api.stream("StreamRunEvents", owner_id=owner, run_id=young)
    assert [event.position > first for part in found for event in part.events] == [True] * 3
    await queue.finish(at_work)
