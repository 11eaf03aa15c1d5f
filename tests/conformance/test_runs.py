"""RunService beyond what all kinds of rows do alike: admission, status, the active run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.expect import exists, fails, invalid, not_found
from tests.conformance.rows import ASSISTANTS, RUNS, THREADS, metadata_of
from tests.service import Api, CallFailed

PENDING, RUNNING, SUCCESS, ERROR, TIMEOUT, INTERRUPTED = range(1, 7)
WORDS = {PENDING: "pending", RUNNING: "running", SUCCESS: "success", ERROR: "error", TIMEOUT: "timeout"}
WORDS[INTERRUPTED] = "interrupted"
FINAL = (SUCCESS, ERROR, TIMEOUT, INTERRUPTED)
IDLE, BUSY = 1, 2


class Place:
    """A thread and an assistant to run."""

    def __init__(self, api: Api, owner: str) -> None:
        self.api, self.owner = api, owner
        self.thread_id, self.assistant_id = f"{owner}-t", f"{owner}-a"

    async def make(self) -> Place:
        await THREADS.create(self.api, self.owner, self.thread_id)
        await ASSISTANTS.create(self.api, self.owner, self.assistant_id)
        return self

    async def run(self, run_id: str = "", **fields: Any) -> Any:
        """A run that is admitted."""
        named = {"thread_id": self.thread_id, "assistant_id": self.assistant_id, "record_only": False}
        return await RUNS.create(self.api, self.owner, run_id, **{**named, **fields})

    async def thread(self) -> Any:
        return await THREADS.get(self.api, self.owner, self.thread_id)

    async def set_thread(self, status: int) -> Any:
        return await THREADS.call(self.api, "Update", self.owner, thread_id=self.thread_id, status=status)

    async def delete(self, run_id: str) -> None:
        await RUNS.call(self.api, "Delete", self.owner, run_id=run_id)

    async def active(self) -> Any:
        return await self.api.call("GetActiveRun", owner_id=self.owner, thread_id=self.thread_id)

    async def update(self, run_id: str, **fields: Any) -> Any:
        return await RUNS.call(self.api, "Update", self.owner, run_id=run_id, **fields)


@pytest.fixture
async def place(api: Api, owner: str) -> Place:
    return await Place(api, owner).make()


async def test_defaults(place: Place) -> None:
    run = await place.run()
    assert (run.thread_id, run.assistant_id) == (place.thread_id, place.assistant_id)
    assert (run.status, run.multitask_strategy, run.kwargs, run.error) == (PENDING, 1, "{}", "")
    assert not run.HasField("finished_at")
    assert metadata_of(run) == {"owner": place.owner}


async def test_admission_makes_the_thread_busy(place: Place) -> None:
    before = await place.thread()
    run = await place.run(kwargs='{"input": [1]}', metadata='{"a": 1}')
    assert (run.kwargs, metadata_of(run)) == ('{"input": [1]}', {"a": 1, "owner": place.owner})
    thread = await place.thread()
    assert thread.status == 2
    assert thread.updated_at == thread.state_updated_at == run.created_at
    assert thread.metadata == before.metadata


@pytest.mark.parametrize("status", [PENDING, RUNNING])
async def test_reject_while_a_run_is_in_flight(place: Place, status: int) -> None:
    first = await place.run(f"{place.owner}-1")
    await place.update(first.run_id, status=status)
    before = await place.thread()
    for strategy in ({}, {"multitask_strategy": "MULTITASK_STRATEGY_REJECT"}):
        with fails("FAILED_PRECONDITION", "THREAD_BUSY", run_ids=first.run_id):
            await place.run(**strategy)
    assert await RUNS.search(place.api, place.owner) == [first.run_id]
    assert await place.thread() == before
    await place.update(first.run_id, status=SUCCESS)
    assert (await place.run()).status == PENDING


async def test_enqueue_waits_in_line(place: Place) -> None:
    runs = [await place.run(f"{place.owner}-{number}", multitask_strategy=2) for number in range(4)]
    assert all((run.status, run.multitask_strategy) == (PENDING, 2) for run in runs)
    with fails("FAILED_PRECONDITION", "THREAD_BUSY", run_ids=",".join(run.run_id for run in runs[:3])):
        await place.run()
    assert (await place.active()).run == runs[3]


@pytest.mark.parametrize("strategy", [0, 1])
async def test_of_sixteen_at_once_one_is_admitted(place: Place, strategy: int) -> None:
    results = await asyncio.gather(*(place.run(multitask_strategy=strategy) for _ in range(16)), return_exceptions=True)
    admitted = [result for result in results if not isinstance(result, BaseException)]
    refused = [result for result in results if isinstance(result, CallFailed)]
    assert (len(admitted), len(refused)) == (1, 15)
    assert {result.reason for result in refused} == {"THREAD_BUSY"}
    assert {result.metadata["run_ids"] for result in refused} == {admitted[0].run_id}
    assert await RUNS.search(place.api, place.owner) == [admitted[0].run_id]


async def test_sixteen_at_once_wait_in_line(place: Place) -> None:
    runs = await asyncio.gather(*(place.run(multitask_strategy=2) for _ in range(16)))
    assert await RUNS.count(place.api, place.owner, thread_id=place.thread_id) == 16
    assert len({run.run_id for run in runs}) == 16


async def test_sixteen_of_one_request_make_one_run(place: Place) -> None:
    sent: dict[str, Any] = {"run_id": f"{place.owner}-1", "request_id": "r1"}
    runs = await asyncio.gather(*(place.run(**sent) for _ in range(16)))
    assert all(run == runs[0] for run in runs)
    assert await RUNS.count(place.api, place.owner) == 1


async def test_admission_sent_again_is_no_conflict_with_itself(place: Place) -> None:
    id = f"{place.owner}-1"
    run = await place.run(id, kwargs='{"a": 1}')
    assert await place.run(id, kwargs='{"a": 1}') == run
    with exists("run", id):
        await place.run(id, kwargs='{"a": 2}')
    assert await place.run(id, kwargs='{"a": 2}', if_exists="IF_EXISTS_DO_NOTHING") == run
    changed = await place.update(id, status=RUNNING)
    assert await place.run(id, kwargs='{"a": 1}') == changed
    assert await RUNS.get(place.api, place.owner, id) == changed


async def test_request_id_with_another_id_is_told_before_the_thread_is_busy(place: Place) -> None:
    run = await place.run(f"{place.owner}-1", request_id="r1")
    before = await place.thread()
    for id in (f"{place.owner}-2", ""):
        with invalid("request_id"):
            await place.run(id, request_id="r1")
    await THREADS.create(place.api, place.owner, f"{place.owner}-free")
    with invalid("request_id"):
        await place.run(f"{place.owner}-2", request_id="r1", thread_id=f"{place.owner}-free")
    assert (await THREADS.get(place.api, place.owner, f"{place.owner}-free")).status == IDLE
    assert await place.thread() == before
    assert await RUNS.search(place.api, place.owner) == [run.run_id]


@pytest.mark.parametrize("absent", ["thread", "assistant"])
async def test_admission_needs_thread_and_assistant(place: Place, absent: str) -> None:
    before = await place.thread()
    with not_found(absent, "absent"):
        await place.run(**{f"{absent}_id": "absent"})
    with invalid(f"{absent}_id"):
        await place.run(**{f"{absent}_id": ""})
    assert await RUNS.count(place.api, place.owner) == 0
    assert await place.thread() == before


@pytest.mark.parametrize("strategy", [3, 4])
async def test_record_only_keeps_every_strategy(place: Place, strategy: int) -> None:
    run = await place.run(multitask_strategy=strategy, record_only=True)
    assert run.multitask_strategy == strategy


@pytest.mark.parametrize("status", WORDS)
async def test_record_only_writes_a_row_and_nothing_else(place: Place, status: int) -> None:
    await place.run()
    before = await place.thread()
    run = await place.run(status=status, record_only=True)
    assert run.status == status
    assert await place.thread() == before
    if status == PENDING:
        return
    with invalid("status"):
        await place.run(status=status)


@pytest.mark.parametrize(("field", "value"), [("status", 7), ("multitask_strategy", 5), ("status", -1)])
async def test_unknown_enum(place: Place, field: str, value: int) -> None:
    fields: dict[str, Any] = {field: value}
    with invalid(field):
        await place.run(**fields, record_only=True)


async def test_runs_of_others_block_no_thread(api: Api, owner: str, other: str) -> None:
    place = Place(api, owner)
    await RUNS.create(api, other, thread_id=place.thread_id)
    await place.make()
    assert not (await place.active()).HasField("run")
    run = await place.run()
    assert (await place.active()).run == run


async def test_run_of_nobody_blocks_the_thread(place: Place, api: Api) -> None:
    run = await RUNS.create(api, None, thread_id=place.thread_id, assistant_id=place.assistant_id)
    with fails("FAILED_PRECONDITION", "THREAD_BUSY", run_ids=run.run_id):
        await place.run()


@pytest.mark.parametrize("before", [PENDING, RUNNING])
@pytest.mark.parametrize("after", WORDS)
async def test_status_in_flight_may_become_any(place: Place, before: int, after: int) -> None:
    run = await place.run(status=before, record_only=True)
    changed = await place.update(run.run_id, status=after)
    assert changed.status == after
    assert changed.HasField("finished_at") is (after in FINAL)
    if after in FINAL:
        assert changed.finished_at == changed.updated_at


@pytest.mark.parametrize("before", FINAL)
@pytest.mark.parametrize("after", WORDS)
async def test_final_status_is_left_only_with_force(place: Place, before: int, after: int) -> None:
    run = await place.run(record_only=True)
    ended = await place.update(run.run_id, status=before)
    if after == before:
        again = await place.update(run.run_id, status=after)
        assert (again.status, again.finished_at) == (before, ended.finished_at)
        return
    with fails("FAILED_PRECONDITION", "RUN_ENDED", current=WORDS[before]):
        await place.update(run.run_id, status=after, metadata='{"a": 1}')
    assert await RUNS.get(place.api, place.owner, run.run_id) == ended
    forced = await place.update(run.run_id, status=after, force=True)
    assert forced.status == after
    assert forced.HasField("finished_at") is (after in FINAL)
    if after in FINAL:
        assert forced.finished_at == ended.finished_at


async def test_ended_run_takes_other_changes(place: Place) -> None:
    run = await place.run(record_only=True)
    ended = await place.update(run.run_id, status=ERROR, error='{"message": "no"}')
    assert ended.error == '{"message": "no"}'
    changed = await place.update(run.run_id, metadata='{"a": 1}', kwargs='{"b": 1}', error="null")
    assert (changed.error, changed.kwargs, changed.status) == ("", '{"b": 1}', ERROR)
    assert changed.finished_at == ended.finished_at


async def test_expected_status(place: Place) -> None:
    id = (await place.run()).run_id
    with fails("ABORTED", "STATUS_MISMATCH", current="pending"):
        await place.update(id, status=SUCCESS, expected_status=[RUNNING, ERROR])
    assert (await place.update(id, status=RUNNING, expected_status=[PENDING, ERROR])).status == RUNNING
    await place.update(id, status=ERROR)
    # The expectation is told before the end, and holds without a status too.
    with fails("ABORTED", "STATUS_MISMATCH", current="error"):
        await place.update(id, status=SUCCESS, expected_status=[RUNNING])
    with fails("FAILED_PRECONDITION", "RUN_ENDED", current="error"):
        await place.update(id, status=SUCCESS, expected_status=[ERROR])
    with fails("ABORTED", "STATUS_MISMATCH", current="error"):
        await place.update(id, metadata="{}", expected_status=[RUNNING], force=True)
    for bad in ([0], [1] * 11):
        with invalid("expected_status"):
            await place.update(id, expected_status=bad)
    for number in (0, 7):
        with invalid("status"):
            await place.update(id, status=number)
    with not_found("run", "absent"):
        await place.update("absent", status=SUCCESS, expected_status=[RUNNING])


async def test_only_one_of_sixteen_takes_a_pending_run(place: Place) -> None:
    id = (await place.run()).run_id
    results = await asyncio.gather(
        *(place.update(id, status=RUNNING, expected_status=[PENDING]) for _ in range(16)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, CallFailed)]
    assert len(refused) == 15
    assert {(result.reason, result.metadata["current"]) for result in refused} == {("STATUS_MISMATCH", "running")}


@pytest.mark.parametrize("verb", ["Get", "Delete"])
async def test_run_of_a_thread(place: Place, verb: str) -> None:
    run = await place.run()
    with not_found("run", run.run_id):
        await RUNS.call(place.api, verb, place.owner, run_id=run.run_id, thread_id="another")
    found = await RUNS.call(place.api, verb, place.owner, run_id=run.run_id, thread_id=place.thread_id)
    assert await RUNS.count(place.api, place.owner) == (1 if verb == "Get" else 0)
    assert found == run or verb == "Delete"


@pytest.mark.parametrize("status", [PENDING, RUNNING])
async def test_deleting_the_last_run_in_flight_frees_the_thread(place: Place, status: int) -> None:
    runs = [await place.run(multitask_strategy=2) for _ in range(2)]
    await place.update(runs[1].run_id, status=status)
    ended = await place.run(status=SUCCESS, record_only=True)
    busy = await place.thread()
    for run in (runs[0], ended):
        await place.delete(run.run_id)
        assert await place.thread() == busy
    await place.delete(runs[1].run_id)
    thread = await place.thread()
    assert thread.status == IDLE
    assert thread.updated_at == thread.state_updated_at
    assert thread.updated_at.ToMicroseconds() > busy.updated_at.ToMicroseconds()
    assert (thread.metadata, thread.values, thread.created_at) == (busy.metadata, busy.values, busy.created_at)
    assert (await place.run()).status == PENDING


async def test_deleting_the_run_that_a_busy_thread_was_left_with_frees_it(place: Place) -> None:
    run = await place.run()
    await place.update(run.run_id, status=SUCCESS)
    assert (await place.thread()).status == BUSY
    await place.delete(run.run_id)
    assert (await place.thread()).status == IDLE


async def test_a_thread_that_a_runtime_made_busy_is_freed_with_its_last_run(place: Place) -> None:
    runs = [await place.run(status=status, record_only=True) for status in (RUNNING, PENDING, ERROR)]
    assert (await place.thread()).status == IDLE
    busy = await place.set_thread(BUSY)
    for run in (runs[0], runs[2]):
        await place.delete(run.run_id)
        assert await place.thread() == busy
    await place.delete(runs[1].run_id)
    assert (await place.thread()).status == IDLE


@pytest.mark.parametrize("status", [1, 3, 4])
async def test_deleting_a_run_leaves_every_other_status_of_the_thread(place: Place, status: int) -> None:
    run = await place.run()
    before = await place.set_thread(status)
    await place.delete(run.run_id)
    assert await place.thread() == before


async def test_deleting_a_run_frees_no_thread_that_is_not_its_own(place: Place, api: Api, other: str) -> None:
    # A row of another owner's that named the thread before it was there.
    foreign = await RUNS.create(api, other, thread_id=f"{place.owner}-late")
    await THREADS.create(api, place.owner, f"{place.owner}-late", status=BUSY)
    await RUNS.call(api, "Delete", other, run_id=foreign.run_id)
    assert (await THREADS.get(api, place.owner, f"{place.owner}-late")).status == BUSY
    run = await place.run()
    with not_found("run", run.run_id):
        await RUNS.call(api, "Delete", other, run_id=run.run_id)
    with not_found("run", run.run_id):
        await RUNS.call(api, "Delete", place.owner, run_id=run.run_id, thread_id="another")
    assert (await place.thread()).status == BUSY


async def test_deleting_a_run_of_nobody_frees_the_thread(place: Place, api: Api) -> None:
    run = await RUNS.create(api, None, thread_id=place.thread_id, assistant_id=place.assistant_id)
    await place.set_thread(BUSY)
    await RUNS.call(api, "Delete", None, run_id=run.run_id)
    assert (await place.thread()).status == IDLE


async def test_active_run_is_the_newest_in_flight(place: Place) -> None:
    assert not (await place.active()).HasField("run")
    runs = [await place.run(status=status, record_only=True) for status in (RUNNING, PENDING, SUCCESS, ERROR)]
    assert (await place.active()).run == runs[1]
    await place.update(runs[1].run_id, status=TIMEOUT)
    assert (await place.active()).run == runs[0]
    await RUNS.call(place.api, "Delete", place.owner, run_id=runs[0].run_id)
    assert not (await place.active()).HasField("run")
    with invalid("thread_id"):
        await place.api.call("GetActiveRun", owner_id=place.owner)
    absent = await place.api.call("GetActiveRun", owner_id=place.owner, thread_id="absent")
    assert not absent.HasField("run")


async def test_search(api: Api, owner: str) -> None:
    runs = [
        await RUNS.create(api, owner, thread_id=f"t{number % 2}", assistant_id=f"a{number % 3}", status=1 + number % 6)
        for number in range(6)
    ]
    ids = [run.run_id for run in runs]
    for filters, places in (
        ({"thread_id": "t1"}, [5, 3, 1]),
        ({"assistant_id": "a0"}, [3, 0]),
        ({"statuses": [PENDING, INTERRUPTED]}, [5, 0]),
        ({"run_ids": [ids[4], "absent"]}, [4]),
        ({"thread_id": "t0", "assistant_id": "a2", "statuses": [SUCCESS], "run_ids": ids}, [2]),
        ({"thread_id": "T1"}, []),
    ):
        assert await RUNS.search(api, owner, **filters) == [ids[place] for place in places]
        assert await RUNS.count(api, owner, **filters) == len(places)
    for verb in ("Search", "Count"):
        with invalid("statuses"):
            await RUNS.call(api, verb, owner, statuses=[0])
        with invalid("statuses[0]"):
            await RUNS.call(api, verb, owner, statuses=[7])
        with invalid("run_ids"):
            await RUNS.call(api, verb, owner, run_ids=["x"] * 1001)
