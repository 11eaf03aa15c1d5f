"""Rows that no call of the service made: checkpoints without a thread, displaced items, words of another version."""

from __future__ import annotations

from typing import Any

import pytest

from tests.regressions.conftest import Bench
from tests.service import CallFailed

_CHECKPOINTS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def leave_checkpoints(bench: Bench, thread_id: str) -> None:
    """A checkpoint as LangGraph's own saver leaves it, in all its tables."""
    await bench.connection.execute(
        "INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint, metadata) VALUES (%s, '1', '{}', '{}')",
        [thread_id],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type) VALUES (%s, 'c', '1', 'empty')",
        [thread_id],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)"
        " VALUES (%s, '1', 't', 0, 'c', '')",
        [thread_id],
    )


async def checkpoints(bench: Bench, thread_id: str) -> list[int]:
    """How many rows of a thread the tables of checkpoints have."""
    return [
        await bench.number(f"SELECT count(*) FROM public.{table} WHERE thread_id = %s", thread_id)
        for table in _CHECKPOINTS
    ]


async def test_no_owner_gets_checkpoints_by_making_their_thread(bench: Bench, owner: str) -> None:
    taken, source = f"taken-{owner}", f"source-{owner}"
    await leave_checkpoints(bench, taken)
    await leave_checkpoints(bench, source)
    # Without an owner, a thread may be made of what is there.
    assert (await bench.api.call("CreateThread", thread_id=source)).thread.thread_id == source
    mine = f"mine-{owner}"
    await bench.api.call("CreateThread", owner_id=owner, thread_id=mine)
    await leave_checkpoints(bench, mine)
    await bench.api.call("AddThreadState", owner_id=owner, thread_id=mine, checkpoint_id="s", values="{}")
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("CreateThread", {"thread_id": taken}),
        ("CreateThread", {"thread_id": taken, "if_exists": "IF_EXISTS_DO_NOTHING"}),
        ("CreateThread", {"thread_id": taken, "request_id": "r"}),
        ("CopyThread", {"thread_id": mine, "new_thread_id": taken}),
        ("CopyThread", {"thread_id": mine, "new_thread_id": taken, "request_id": "r"}),
    )
    for method, fields in calls:
        with pytest.raises(CallFailed) as refused:
            await bench.api.call(method, owner_id=owner, **fields)
        assert refused.value.code.name == refused.value.reason == "ALREADY_EXISTS"
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await bench.api.call("DeleteThread", owner_id=owner, thread_id=taken)
    assert await checkpoints(bench, taken) == [1, 1, 1]
    assert await bench.number("SELECT count(*) FROM langgraph_server.threads WHERE id = %s", taken) == 0
    assert await bench.number("SELECT count(*) FROM langgraph_server.thread_states WHERE thread_id = %s", taken) == 0
    await bench.api.call("CreateThread", thread_id=taken)
    assert await checkpoints(bench, taken) == [1, 1, 1]


async def test_a_reader_of_a_shared_thread_copies_no_checkpoints(bench: Bench, owner: str, other: str) -> None:
    shared = f"shared-{owner}"
    visibility = "THREAD_VISIBILITY_READ_BY_ID"
    await bench.api.call("CreateThread", owner_id=owner, thread_id=shared, visibility=visibility, values='{"a": 1}')
    await bench.api.call("AddThreadState", owner_id=owner, thread_id=shared, checkpoint_id="s", values='{"b": 2}')
    await leave_checkpoints(bench, shared)
    for who, wanted in ((other, [0, 0, 0]), (owner, [1, 1, 1])):
        copy = (await bench.api.call("CopyThread", owner_id=who, thread_id=shared)).thread
        states = (await bench.api.call("ListThreadStates", owner_id=who, thread_id=copy.thread_id)).states
        assert [(state.checkpoint_id, state.values) for state in states] == [("s", '{"b": 2}')]
        assert await checkpoints(bench, copy.thread_id) == wanted
    copy = (await bench.api.call("CopyThread", thread_id=shared)).thread
    assert await checkpoints(bench, copy.thread_id) == [1, 1, 1]


async def test_displaced_items_are_counted_and_erased(bench: Bench, owner: str, other: str) -> None:
    insert = (
        "INSERT INTO langgraph_server.store_items_displaced (namespace, key, owner_id, value, reason)"
        " SELECT 'a', 'k' || n, %s, '{}', 'spelling' FROM generate_series(1, %s) AS n"
    )
    await bench.connection.execute(insert, [owner, 450])
    await bench.connection.execute(insert, [other, 1])
    await bench.api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value="1")
    usage = (await bench.api.call("GetOwnerUsage", owner_id=owner)).usage
    ((rows, size),) = [(row.rows, row.bytes) for row in usage if row.rows]
    assert rows == 451
    assert size > 451
    erased = await bench.api.call("EraseOwner", owner_id=owner)
    assert (erased.done, erased.deleted) == (True, 451)
    left = "SELECT count(*) FROM langgraph_server.store_items_displaced WHERE owner_id = %s"
    assert (await bench.number(left, owner), await bench.number(left, other)) == (0, 1)
    assert not any(row.rows for row in (await bench.api.call("GetOwnerUsage", owner_id=owner)).usage)


async def test_a_row_with_an_empty_request_id_stands_in_no_run_s_way(bench: Bench, owner: str) -> None:
    for number in range(2):
        await bench.connection.execute(
            "INSERT INTO langgraph_server.runs (id, thread_id, request_id) VALUES (%s, 'another', '')",
            [f"{owner}-{number}"],
        )
    thread = (await bench.api.call("CreateThread", owner_id=owner)).thread
    assistant = (await bench.api.call("CreateAssistant", owner_id=owner, graph_id="g")).assistant
    named = {"thread_id": thread.thread_id, "assistant_id": assistant.assistant_id}
    assert (await bench.api.call("CreateRun", owner_id=owner, **named)).run.run_id


async def exported(bench: Bench, owner: str) -> dict[str, list[Any]]:
    """All rows of an owner, by kind."""
    rows: dict[str, list[Any]] = {}
    for message in await bench.api.stream("ExportOwner", owner_id=owner):
        for field, found in message.ListFields():
            rows.setdefault(field.name, []).extend(found)
    return rows


async def test_displaced_items_are_exported_as_they_were(bench: Bench, owner: str, other: str) -> None:
    insert = (
        "INSERT INTO langgraph_server.store_items_displaced"
        " (namespace, key, owner_id, value, metadata, created_at, updated_at, displaced_at, reason)"
        " VALUES (%s, %s, %s, %s::jsonb, %s::jsonb, %s, %s, '2026-01-02 03:04:05.000006+00', 'spelling')"
    )
    early = "2024-05-06 07:08:09.000001+00"
    whole = ("{a,b}", "k", owner, '{"n": 12345678901234567890}', '{"m": "ü"}', early, early)
    for row in (whole, ("{a.b}", "", owner, None, None, None, None), ("{a,b}", "k", other, '"s"', "{}", early, early)):
        await bench.connection.execute(insert, row)
    first, second = (await exported(bench, owner))["displaced_items"]
    assert (first.namespace, first.key, first.value, first.metadata) == (
        "{a,b}",
        "k",
        '{"n": 12345678901234567890}',
        '{"m": "ü"}',
    )
    assert first.created_at.ToJsonString() == first.updated_at.ToJsonString() == "2024-05-06T07:08:09.000001Z"
    assert (first.displaced_at.ToJsonString(), first.reason) == ("2026-01-02T03:04:05.000006Z", "spelling")
    assert (second.namespace, second.key, second.value, second.metadata) == ("{a.b}", "", "", "")
    assert not second.HasField("created_at")
    assert first.id < second.id


async def test_checkpoints_are_counted_and_exported(bench: Bench, owner: str, other: str) -> None:
    threads = [f"t{number}-{owner}" for number in range(3)]
    for thread_id in threads:
        await bench.api.call("CreateThread", owner_id=owner, thread_id=thread_id)
        await leave_checkpoints(bench, thread_id)
    await bench.api.call("CreateThread", owner_id=other, thread_id=f"t-{other}")
    for thread_id in (f"t-{other}", f"nobodys-{owner}"):
        await leave_checkpoints(bench, thread_id)
    # A thread with more than a page of each, in namespaces, with what may be missing.
    many = threads[1]
    await bench.connection.execute(
        "INSERT INTO public.checkpoints SELECT %s, 'ns' || n %% 3, n::text, n::text, 'msgpack',"
        " jsonb_build_object('n', n), jsonb_build_object('step', n) FROM generate_series(1, 250) AS n",
        [many],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_blobs SELECT %s, 'ns' || n %% 3, 'Ä', n::text, 'msgpack', decode('00ff', 'hex')"
        " FROM generate_series(1, 250) AS n",
        [many],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_writes SELECT %s, '', '1', 't', -n, 'c', 'json', '\x22', 'p'"
        " FROM generate_series(1, 250) AS n",
        [many],
    )
    rows = await exported(bench, owner)
    keys = {
        "checkpoints": ("checkpoint_ns", "checkpoint_id"),
        "checkpoint_blobs": ("checkpoint_ns", "channel", "version"),
        "checkpoint_writes": ("checkpoint_ns", "checkpoint_id", "task_id", "idx"),
    }
    for table, names in keys.items():
        places = {(row.thread_id, *(getattr(row, name) for name in names)) for row in rows[table]}
        assert len(places) == len(rows[table]) == 253
        assert {row.thread_id for row in rows[table]} == set(threads)
    checkpoint = next(row for row in rows["checkpoints"] if row.checkpoint_id == "7")
    assert (checkpoint.checkpoint_ns, checkpoint.parent_checkpoint_id, checkpoint.type) == ("ns1", "7", "msgpack")
    assert (checkpoint.checkpoint, checkpoint.metadata) == ('{"n": 7}', '{"step": 7}')
    assert not rows["checkpoints"][0].HasField("parent_checkpoint_id")
    blobs = {row.version: row for row in rows["checkpoint_blobs"] if row.channel == "Ä"}
    assert (blobs["3"].type, blobs["3"].blob) == ("msgpack", b"\x00\xff")
    assert not any(row.HasField("blob") for row in rows["checkpoint_blobs"] if row.channel == "c")
    written = next(row for row in rows["checkpoint_writes"] if row.idx == -9)
    assert (written.type, written.blob, written.task_path) == ("json", b'"', "p")
    # What is exported is what counts, and what is erased.
    usage = (await bench.api.call("GetOwnerUsage", owner_id=owner)).usage
    ((resource, counted),) = [(row.resource, row.rows) for row in usage if row.rows]
    assert (resource, counted) == (2, sum(map(len, rows.values())))
    await bench.api.call("EraseOwner", owner_id=owner)
    assert await exported(bench, owner) == {}
    assert [sum(await checkpoints(bench, thread_id)) for thread_id in threads] == [0, 0, 0]
    assert await checkpoints(bench, f"nobodys-{owner}") == await checkpoints(bench, f"t-{other}") == [1, 1, 1]


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("kind", ["Run", "Thread"])
async def test_a_status_of_another_version_comes_before_the_known_ones(
    bench: Bench, owner: str, kind: str, direction: str
) -> None:
    # Before, between, and after the words that this version knows.
    words = {
        "Run": ("aborted", "error", "interrupted", "paused", "pending", "success", "zombie"),
        "Thread": ("archived", "busy", "error", "frozen", "idle", "interrupted", "waiting"),
    }[kind]
    table = f"langgraph_server.{kind.lower()}s"
    for number, word in enumerate(words):
        await bench.connection.execute(
            f"INSERT INTO {table} (id, status, metadata) VALUES (%s, %s, jsonb_build_object('owner', %s::text))",
            [f"{owner}-{number}", word, owner],
        )
    known = {"Run": ("error", "interrupted", "pending", "success"), "Thread": ("busy", "error", "idle", "interrupted")}
    places = sorted(range(len(words)), key=lambda number: (words[number] in known[kind], number))
    wanted = [f"{owner}-{number}" for number in places]
    order = wanted if direction == "ASC" else wanted[::-1]
    search: dict[str, Any] = {
        "owner_id": owner,
        "sort_by": f"{kind.upper()}_SORT_STATUS",
        "sort_order": f"SORT_ORDER_{direction}",
    }

    async def page(**fields: Any) -> tuple[list[str], str]:
        answer = await bench.api.call(f"Search{kind}s", **search, **fields)
        return [
            getattr(row, f"{kind.lower()}_id") for row in getattr(answer, f"{kind.lower()}s")
        ], answer.next_page_token

    # All at once, page by page, and by offset.
    assert await page(page_size=100) == (order, "")
    for size in (1, 2):
        found: list[str] = []
        token = ""
        while len(found) < len(words):
            ids, token = await page(page_size=size, page_token=token)
            assert ids
            found += ids
        assert (found, token) == (order, "")
    assert [(await page(page_size=1, offset=offset))[0] for offset in range(len(words))] == [[id] for id in order]
    # No filter by a status finds them, and what is read has none.
    ids, _ = await page(page_size=100, statuses=list(range(1, 7 if kind == "Run" else 5)))
    assert set(ids) == {id for number, id in enumerate(sorted(wanted)) if words[number] in known[kind]}
    named: dict[str, Any] = {"owner_id": owner, f"{kind.lower()}_id": f"{owner}-0"}
    row = getattr(await bench.api.call(f"Get{kind}", **named), kind.lower())
    assert row.status == 0


async def test_a_run_whose_status_is_of_another_version_has_not_ended(bench: Bench, owner: str) -> None:
    id = f"r-{owner}"
    run: dict[str, Any] = {"owner_id": owner, "run_id": id}

    async def begin(word: str) -> None:
        await bench.connection.execute(
            "INSERT INTO langgraph_server.runs (id, status, metadata) VALUES (%s, %s, jsonb_build_object('owner', %s::text))"
            " ON CONFLICT (id) DO UPDATE SET status = EXCLUDED.status, finished_at = NULL",
            [id, word, owner],
        )

    await begin("paused")
    kept = (await bench.api.call("UpdateRun", **run, metadata='{"a": 1}', kwargs='{"b": 2}')).run
    assert (kept.status, kept.kwargs) == (0, '{"b": 2}')
    paused = "SELECT count(*) FROM langgraph_server.runs WHERE id = %s AND status = 'paused'"
    assert await bench.number(paused, id) == 1
    with pytest.raises(CallFailed) as refused:
        await bench.api.call("UpdateRun", **run, status="RUN_STATUS_SUCCESS", expected_status=["RUN_STATUS_RUNNING"])
    assert (refused.value.reason, refused.value.metadata) == ("STATUS_MISMATCH", {"current": ""})
    for status, number, ended in (("RUNNING", 2, False), ("SUCCESS", 3, True)):
        await begin("paused")
        updated = (await bench.api.call("UpdateRun", **run, status=f"RUN_STATUS_{status}")).run
        assert (updated.status, updated.HasField("finished_at")) == (number, ended)
    # What has ended stays so, as ever.
    assert (await bench.api.call("UpdateRun", **run, status="RUN_STATUS_SUCCESS")).run.status == 3
    with pytest.raises(CallFailed, match="RUN_ENDED"):
        await bench.api.call("UpdateRun", **run, status="RUN_STATUS_ERROR")


async def test_a_thread_whose_status_is_of_another_version_can_be_changed(bench: Bench, owner: str) -> None:
    id = f"t-{owner}"
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": id}
    await bench.connection.execute(
        "INSERT INTO langgraph_server.threads (id, status, metadata) VALUES (%s, 'frozen', jsonb_build_object('owner', %s::text))",
        [id, owner],
    )
    kept = (await bench.api.call("UpdateThread", **thread, values='{"a": 1}')).thread
    assert (kept.status, kept.values) == (0, '{"a": 1}')
    calls: tuple[tuple[str, dict[str, Any]], ...] = (("UpdateThread", {"status": 2}), ("SetThreadStatus", {}))
    for method, fields in calls:
        with pytest.raises(CallFailed) as refused:
            await bench.api.call(method, **thread, **fields, expected_status=[1])
        assert (refused.value.reason, refused.value.metadata) == ("STATUS_MISMATCH", {"current": ""})
    assert (await bench.api.call("SetThreadStatus", **thread)).thread.status == 1


async def test_a_cron_whose_schedule_cannot_be_read_can_be_switched_off(bench: Bench, owner: str) -> None:
    id = f"c-{owner}"
    await bench.connection.execute(
        "INSERT INTO langgraph_server.crons (id, assistant_id, schedule, user_id, payload, metadata)"
        " VALUES (%s, 'a', '61 * * * *', '', '{}', jsonb_build_object('owner', %s::text))",
        [id, owner],
    )
    cron = (await bench.api.call("UpdateCron", owner_id=owner, cron_id=id, enabled=False)).cron
    assert (cron.enabled, cron.schedule, cron.HasField("next_run_date")) == (False, "61 * * * *", False)
    with pytest.raises(CallFailed, match="schedule"):
        await bench.api.call("UpdateCron", owner_id=owner, cron_id=id, enabled=True)
