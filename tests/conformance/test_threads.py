"""ThreadService beyond states and what all kinds of rows do alike."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.expect import exists, fails, invalid, not_found
from tests.conformance.rows import ASSISTANTS, CRONS, RUNS, THREADS, assert_same, metadata_of
from tests.service import Api

IDLE, BUSY, INTERRUPTED, ERROR = 1, 2, 3, 4
WORDS = {IDLE: "idle", BUSY: "busy", INTERRUPTED: "interrupted", ERROR: "error"}


async def update(api: Api, owner: str, id: str, **fields: Any) -> Any:
    return await THREADS.call(api, "Update", owner, thread_id=id, **fields)


async def set_status(api: Api, owner: str, id: str, **fields: Any) -> Any:
    return (await api.call("SetThreadStatus", owner_id=owner, thread_id=id, **fields)).thread


async def states(api: Api, owner: str, id: str, **fields: Any) -> list[Any]:
    return list((await api.call("ListThreadStates", owner_id=owner, thread_id=id, page_size=100, **fields)).states)


async def add_state(api: Api, owner: str, id: str, **fields: Any) -> Any:
    return (await api.call("AddThreadState", owner_id=owner, thread_id=id, **fields)).state


async def test_defaults(api: Api, owner: str) -> None:
    row = await THREADS.create(api, owner)
    assert (row.config, row.values, row.interrupts, row.error) == ("{}", "{}", "{}", "")
    assert (row.status, row.visibility) == (IDLE, 1)
    assert not row.HasField("state_updated_at")


async def test_every_field_is_kept(api: Api, owner: str) -> None:
    row = await THREADS.create(
        api, owner, config='{"a": 1}', values="[1]", interrupts='"i"', status=INTERRUPTED, visibility=2
    )
    assert (row.config, row.values, row.interrupts) == ('{"a": 1}', "[1]", '"i"')
    assert (row.status, row.visibility) == (INTERRUPTED, 2)
    assert await THREADS.get(api, owner, row.thread_id) == row


@pytest.mark.parametrize("field", ["status", "visibility"])
async def test_unknown_enum(api: Api, owner: str, field: str) -> None:
    unknown: dict[str, Any] = {field: 99}
    id = THREADS.id_of(await THREADS.create(api, owner))
    with invalid(field):
        await THREADS.create(api, owner, **unknown)
    for number in (0, 99, -1):
        with invalid(field):
            await update(api, owner, id, **{field: number})


@pytest.mark.parametrize(
    ("field", "value", "moves"),
    [
        ("config", '{"x": 1}', False),
        ("status", ERROR, True),
        ("values", "null", True),
        ("values", '{"x": 1}', True),
        ("interrupts", "[]", False),
        ("error", '{"message": "no"}', False),
        ("visibility", 2, False),
    ],
)
async def test_update_changes_one_field_and_keeps_the_others(
    api: Api, owner: str, field: str, value: Any, moves: bool
) -> None:
    row = await THREADS.create(api, owner, config='{"a": 1}', values="[1]", interrupts='"i"', metadata='{"m": 1}')
    changed = await update(api, owner, row.thread_id, **{field: value})
    for name in (
        "thread_id",
        "metadata",
        "config",
        "status",
        "values",
        "interrupts",
        "error",
        "visibility",
        "created_at",
    ):
        assert getattr(changed, name) == (value if name == field else getattr(row, name))
    assert changed.updated_at.ToMicroseconds() > row.updated_at.ToMicroseconds()
    assert changed.HasField("state_updated_at") is moves
    if moves:
        assert changed.state_updated_at == changed.updated_at
    assert await THREADS.get(api, owner, row.thread_id) == changed


async def test_error_is_emptied_by_null(api: Api, owner: str) -> None:
    id = THREADS.id_of(await THREADS.create(api, owner))
    assert (await update(api, owner, id, error='"no"')).error == '"no"'
    assert (await update(api, owner, id, error="")).error == '"no"'
    assert (await update(api, owner, id, error=" null ")).error == ""


@pytest.mark.parametrize("call", [update, set_status])
async def test_expected_status(api: Api, owner: str, call: Any) -> None:
    id = THREADS.id_of(await THREADS.create(api, owner, status=ERROR))
    with fails("ABORTED", "STATUS_MISMATCH", current="error"):
        await call(api, owner, id, expected_status=[IDLE, BUSY], values="[2]")
    assert (await THREADS.get(api, owner, id)).values == "{}"
    assert (await call(api, owner, id, expected_status=[IDLE, ERROR], values="[2]")).values == "[2]"
    with invalid("expected_status"):
        await call(api, owner, id, expected_status=[0])
    with invalid("expected_status"):
        await call(api, owner, id, expected_status=[1] * 11)
    with invalid("expected_status[1]"):
        await call(api, owner, id, expected_status=[1, 9])
    with not_found("thread", "absent"):
        await call(api, owner, "absent", expected_status=[IDLE])


@pytest.mark.parametrize("status", WORDS)
async def test_mismatch_tells_the_status(api: Api, owner: str, status: int) -> None:
    id = THREADS.id_of(await THREADS.create(api, owner, status=status))
    with fails("ABORTED", "STATUS_MISMATCH", current=WORDS[status]):
        await update(api, owner, id, expected_status=[status % 4 + 1])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, IDLE),
        ({"next": ["node"]}, INTERRUPTED),
        ({"error": '"no"'}, ERROR),
        ({"error": '"no"', "next": ["node"]}, ERROR),
        ({"error": "null"}, IDLE),
        ({"error": "{}"}, ERROR),
    ],
)
@pytest.mark.parametrize("run", [None, "RUN_STATUS_PENDING", "RUN_STATUS_RUNNING", "RUN_STATUS_ERROR"])
async def test_status_is_computed(api: Api, owner: str, fields: dict[str, Any], status: int, run: str | None) -> None:
    row = await THREADS.create(api, owner, status=BUSY, values="[1]", interrupts="[2]")
    if run:
        await RUNS.create(api, owner, thread_id=row.thread_id, status=run)
    changed = await set_status(api, owner, row.thread_id, **fields)
    assert changed.status == (BUSY if run in ("RUN_STATUS_PENDING", "RUN_STATUS_RUNNING") else status)
    assert changed.error == ("" if fields.get("error", "null") == "null" else fields["error"])
    assert (changed.values, changed.interrupts) == ("[1]", "[2]")
    assert changed.state_updated_at == changed.updated_at
    assert await THREADS.get(api, owner, row.thread_id) == changed
    changed = await set_status(api, owner, row.thread_id, values='{"v": 1}', interrupts="{}")
    assert (changed.values, changed.interrupts, changed.error) == ('{"v": 1}', "{}", "")


async def test_runs_of_others_keep_no_thread_busy(api: Api, owner: str, other: str) -> None:
    thread_id = f"{owner}-t"
    await RUNS.create(api, other, thread_id=thread_id)
    await THREADS.create(api, owner, thread_id, status=BUSY)
    await RUNS.create(api, owner)
    assert (await set_status(api, owner, thread_id)).status == IDLE
    with not_found("thread", "absent"):
        await set_status(api, owner, "absent")


async def test_search_by_ids_and_statuses(api: Api, owner: str) -> None:
    ids = [THREADS.id_of(await THREADS.create(api, owner, status=1 + number % 4)) for number in range(6)]
    for filters, places in (
        ({"statuses": [IDLE]}, [4, 0]),
        ({"statuses": [BUSY, ERROR]}, [5, 3, 1]),
        ({"statuses": [IDLE, IDLE]}, [4, 0]),
        ({"thread_ids": [ids[0], ids[2], "absent"]}, [2, 0]),
        ({"thread_ids": ids, "statuses": [INTERRUPTED], "metadata": "{}", "values": "{}"}, [2]),
    ):
        assert await THREADS.search(api, owner, **filters) == [ids[place] for place in places]
        assert await THREADS.count(api, owner, **filters) == len(places)
    for verb in ("Search", "Count"):
        with invalid("statuses"):
            await THREADS.call(api, verb, owner, statuses=[1, 0])
        with invalid("statuses[0]"):
            await THREADS.call(api, verb, owner, statuses=[5])
        with invalid("statuses"):
            await THREADS.call(api, verb, owner, statuses=[1] * 11)
        with invalid("thread_ids"):
            await THREADS.call(api, verb, owner, thread_ids=["x"] * 1001)
        with invalid("values"):
            await THREADS.call(api, verb, owner, values="[]")


async def fill(api: Api, owner: str, other: str) -> Any:
    """A thread with everything that hangs on one, and rows that look like it."""
    row = await THREADS.create(
        api, owner, f"{owner}-t", metadata='{"m": 1}', config='{"c": 1}', status=ERROR, visibility=2
    )
    id = row.thread_id
    for number in range(3):
        await add_state(
            api, owner, id, checkpoint_id=f"c{number}", values=f"[{number}]", next=["n"], tasks="[1]",
            metadata=f'{{"s": {number}}}', interrupts="[2]",
        )  # fmt: skip
    for name in (owner, None):
        await RUNS.create(api, name, thread_id=id)
    await CRONS.create(api, owner, thread_id=id)
    return await THREADS.get(api, owner, id)


async def test_delete_takes_what_hangs_on_it(api: Api, owner: str, other: str) -> None:
    kept = THREADS.id_of(await THREADS.create(api, owner))
    await RUNS.create(api, owner, thread_id=kept)
    foreign_run = await RUNS.create(api, other, thread_id=f"{owner}-t")
    foreign_cron = await CRONS.create(api, other, thread_id=f"{owner}-t")
    row = await fill(api, owner, other)
    await THREADS.call(api, "Delete", owner, thread_id=row.thread_id)
    assert await THREADS.search(api, owner) == [kept]
    assert await RUNS.count(api, None, thread_id=row.thread_id) == 1
    assert await RUNS.count(api, owner, thread_id=kept) == 1
    assert await CRONS.count(api, owner) == 0
    assert await RUNS.get(api, other, foreign_run.run_id) == foreign_run
    assert await CRONS.get(api, other, foreign_cron.cron_id) == foreign_cron
    # A new thread of that id begins empty.
    await THREADS.create(api, owner, row.thread_id)
    assert await states(api, owner, row.thread_id) == []


async def test_copy(api: Api, owner: str, other: str) -> None:
    source = await fill(api, owner, other)
    before = await states(api, owner, source.thread_id)
    copy = (
        await api.call("CopyThread", owner_id=owner, thread_id=source.thread_id, new_thread_id=f"{owner}-copy")
    ).thread
    assert copy.thread_id == f"{owner}-copy"
    for name in ("config", "values", "interrupts", "metadata"):
        assert getattr(copy, name) == getattr(source, name)
    assert (copy.status, copy.visibility, copy.error) == (IDLE, 1, "")
    assert copy.created_at.ToMicroseconds() > source.created_at.ToMicroseconds()
    assert copy.updated_at == copy.state_updated_at == copy.created_at
    copied = await states(api, owner, copy.thread_id)
    assert [state.checkpoint_id for state in copied] == ["c2", "c1", "c0"]
    for mine, theirs in zip(copied, before, strict=True):
        assert mine.thread_id == copy.thread_id
        assert mine.sequence > before[0].sequence
        for name in ("values", "next", "tasks", "metadata", "interrupts", "created_at"):
            assert getattr(mine, name) == getattr(theirs, name)
    for mine, parent in zip(copied[:2], ("c1", "c0"), strict=True):
        assert_same(mine.parent_checkpoint, {"thread_id": copy.thread_id, "checkpoint_ns": "", "checkpoint_id": parent})
    assert copied[2].parent_checkpoint == ""
    assert await RUNS.count(api, owner, thread_id=copy.thread_id) == 0
    assert await CRONS.count(api, owner, thread_id=copy.thread_id) == 0
    # The source is as it was, and stays so when the copy moves on.
    await add_state(api, owner, copy.thread_id, checkpoint_id="c3")
    assert await THREADS.get(api, owner, source.thread_id) == source
    assert await states(api, owner, source.thread_id) == before


async def test_copy_keeps_a_parent_in_another_thread(api: Api, owner: str) -> None:
    id = THREADS.id_of(await THREADS.create(api, owner))
    await add_state(api, owner, id, parent_checkpoint='{"thread_id": "elsewhere", "checkpoint_id": "x"}')
    copy = (await api.call("CopyThread", owner_id=owner, thread_id=id)).thread
    assert len(copy.thread_id) == 32
    [state] = await states(api, owner, copy.thread_id)
    assert_same(state.parent_checkpoint, {"thread_id": "elsewhere", "checkpoint_id": "x"})


async def test_copy_to_an_id_that_is_taken(api: Api, owner: str, other: str) -> None:
    id = THREADS.id_of(await THREADS.create(api, owner))
    await THREADS.create(api, other, f"{owner}-foreign")
    first = await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=f"{owner}-2", request_id="r")
    again = await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=f"{owner}-2", request_id="r")
    assert again == first
    others: tuple[dict[str, Any], ...] = ({}, {"request_id": "r2"})
    for more in others:
        for taken in (id, f"{owner}-2", f"{owner}-foreign"):
            with exists("thread", taken):
                await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=taken, **more)
    with not_found("thread", "absent"):
        await api.call("CopyThread", owner_id=owner, thread_id="absent", new_thread_id=f"{owner}-3")
    assert await THREADS.count(api, owner) == 2


@pytest.mark.parametrize("strategy", [1, 2])
async def test_prune(api: Api, owner: str, other: str, strategy: int) -> None:
    row = await fill(api, owner, other)
    empty = await THREADS.create(api, owner)
    kept = await THREADS.create(api, owner)
    foreign = await THREADS.create(api, other)
    for thread in (kept, foreign):
        for _ in range(2):
            await add_state(api, owner if thread is kept else other, thread.thread_id)
    newest = (await states(api, owner, row.thread_id))[0]
    asked = [row.thread_id, empty.thread_id, foreign.thread_id, "absent", row.thread_id]
    response = await api.call("PruneThreads", owner_id=owner, thread_ids=asked, strategy=strategy)
    assert response.pruned == 2
    if strategy == 2:
        assert await states(api, owner, row.thread_id) == [newest]
        assert await THREADS.get(api, owner, row.thread_id) == row
        assert await RUNS.count(api, owner, thread_id=row.thread_id) == 2
    else:
        assert await THREADS.search(api, owner) == [kept.thread_id]
        assert await RUNS.count(api, owner) == await CRONS.count(api, owner) == 0
    assert len(await states(api, owner, kept.thread_id)) == 2
    assert len(await states(api, other, foreign.thread_id)) == 2
    again = await api.call("PruneThreads", owner_id=owner, thread_ids=asked, strategy=strategy)
    assert again.pruned == (2 if strategy == 2 else 0)
    with invalid("thread_ids"):
        await api.call("PruneThreads", owner_id=owner, thread_ids=[], strategy=strategy)
    with invalid("strategy"):
        await api.call("PruneThreads", owner_id=owner, thread_ids=["x"], strategy=9)


async def test_metadata_of_the_copy_is_the_copiers(api: Api, owner: str, other: str) -> None:
    row = await THREADS.create(api, owner, visibility=2, metadata='{"m": 1}')
    copy = (await api.call("CopyThread", owner_id=other, thread_id=row.thread_id)).thread
    assert metadata_of(copy) == {"m": 1, "owner": other}
    nobodys = (await api.call("CopyThread", thread_id=row.thread_id)).thread
    assert metadata_of(nobodys) == {"m": 1}
    assert await ASSISTANTS.count(api, other, metadata='{"m": 1}') == 0
