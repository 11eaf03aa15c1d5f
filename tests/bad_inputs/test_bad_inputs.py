"""Every bad input gets its status on both backends, never UNKNOWN or INTERNAL; nothing of it is repeated; the server goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from tests.bad_inputs.row import CANARY, Row
from tests.bad_inputs.rows import NOT_APPLICABLE, ROWS
from tests.postgres_server import PostgresServer
from tests.service import METHODS, Api, CallFailed, ServerProcess, connected

#: Rows that are tests of their own, here or in another suite.
OTHERS = {
    "B19": "test_ids_are_compared_byte_by_byte",
    "B32": "test_a_token_serves_its_own_search_only",
    "B46": "test_wire.py",
    "B47": "test_wire.py",
    "B48": "test_wire.py",
    "B49": "test_wire.py",
    "B50": "test_wire.py",
    "B51": "test_tokens.py",
    "B52": "test_tokens.py",
    "B53": "test_tokens.py",
    "B55": "tests/tenants",
    "B57": "test_creates_again",
    "B58": "test_creates_again",
    "B59": "test_stale_versions_and_ended_runs",
    "B60": "test_stale_versions_and_ended_runs",
    "B66": "test_wire.py",
    "B67": "test_wire.py",
    "B71": "test_wire.py",
    "B72": "test_wire.py",
}


def log_of(server: ServerProcess) -> str:
    """The whole log of a server, which ends it: it gathers lines before it writes them."""
    with server.log.open() as log:
        server.stop()
        return log.read()


@pytest.fixture(scope="module", params=("memory-grpc", "memory-exchange", "postgres-exchange"))
async def api(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> AsyncIterator[Api]:
    """A server of its own for each backend and way in, that logs every call; its log is read when all is done."""
    backend, _, way = request.param.partition("-")
    url = postgres_server.url(postgres_server.create_database()) if backend == "postgres" else ""
    server = ServerProcess(backend, url, environment={"STORAGE_LOG_LEVEL": "INFO"}).start()
    async with connected(server.target, backend, way) as api:
        yield api
    text = log_of(server)
    assert CANARY not in text
    assert "Traceback" not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any(line.get("code") == "INVALID_ARGUMENT" for line in lines)
    assert not [line for line in lines if line.get("code") in ("INTERNAL", "UNKNOWN") or line["level"] == "error"]


def fields_of(row: Row) -> dict[str, Any]:
    """The fields of a row's request, with an owner."""
    fields = dict(row.fields)
    if METHODS[row.method].input_type.fields_by_name.get("owner_id") and fields.setdefault("owner_id", "owner") is None:
        del fields["owner_id"]
    return fields


async def send(api: Api, row: Row) -> None:
    """Send a row, and read its answer."""
    if METHODS[row.method].server_streaming:
        await api.stream(row.method, **fields_of(row))
    else:
        await api.send(row.method, data_of(row))


def data_of(row: Row) -> bytes:
    """The request of a row as bytes."""
    if row.raw is not None:
        return row.raw()
    fields = fields_of(row)
    mask = fields.pop("fields", None)
    request: Any = ParseDict(fields, GetMessageClass(METHODS[row.method].input_type)())
    if mask is not None:
        request.fields.paths.extend(mask.split(","))
    data: bytes = request.SerializeToString()
    return data


def test_every_row_of_the_catalogue_is_here() -> None:
    assert {row.number for row in ROWS} | OTHERS.keys() | NOT_APPLICABLE.keys() == {f"B{n}" for n in range(1, 73)}


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.number}-{row.method}-{index}" for index, row in enumerate(ROWS)])
async def test_bad_input(api: Api, row: Row) -> None:
    failure: CallFailed | None = None
    try:
        await send(api, row)
    except CallFailed as caught:
        failure = caught
    code, reason, details = (failure.code.name, failure.reason, failure.details) if failure else ("OK", "", b"")
    if failure is not None:
        assert CANARY not in failure.message
        assert len(failure.message) <= 256
        if row.code == "INVALID_ARGUMENT" and row.raw is None and "PAGE_TOKEN" not in reason:
            assert failure.fields, "the field is not named"
    assert (code, reason) == (row.code, row.reason)
    assert len(details) < 1024
    assert CANARY.encode() not in details
    assert (await api.call("GetServerInfo")).backend == api.backend


async def refused(call: Any, code: str, reason: str) -> CallFailed:
    """The failure of a call, which must be this one."""
    with pytest.raises(CallFailed) as caught:
        await call
    assert (caught.value.code.name, caught.value.reason) == (code, reason)
    assert len(caught.value.details) < 1024
    return caught.value


async def test_numbers_come_back_as_they_were_sent(api: Api, owner: str) -> None:
    """B9, B10, B12: jsonb's numbers, exactly, and the last of two keys."""
    for sent, kept in (
        ("9007199254740993", None),
        ("1e400", "1" + "0" * 400),
        ('{"a": 1, "a": 2}', '{"a": 2}'),
        ("-0.0", "0.0"),
    ):
        put = await api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value=sent)
        assert put.item.value == (kept or sent)


async def test_ids_are_compared_byte_by_byte(api: Api, owner: str) -> None:
    """B18, B19: ids that differ by case or by normal form are different ids, and no pattern matches one."""
    ids = [f"{owner}{end}" for end in ("é", "e\u0301", "A", "a", "%", "_", "\\", "x", " ", "\u200b")]
    for id in ids:
        await api.call(
            "CreateThread", owner_id=owner, thread_id=id, if_exists="IF_EXISTS_RAISE", config=json.dumps({"n": id})
        )
    for id in ids:
        assert json.loads((await api.call("GetThread", owner_id=owner, thread_id=id)).thread.config) == {"n": id}
    assert (await api.call("CountThreads", owner_id=owner)).count == len(ids)


async def test_a_token_serves_its_own_search_only(api: Api, owner: str) -> None:
    """B31, B32."""
    for _ in range(3):
        await api.call("CreateThread", owner_id=owner)
    page = await api.call("SearchThreads", owner_id=owner, page_size=1)
    token = page.next_page_token
    for changed in (
        {"metadata": "{}"},
        {"sort_by": "THREAD_SORT_STATUS"},
        {"sort_order": "SORT_ORDER_ASC"},
        {"statuses": [1]},
    ):
        call = api.call("SearchThreads", owner_id=owner, page_token=token, **changed)
        await refused(call, "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    for broken in (token[:-1], token[:10], token[:-4] + "AAAA", "A" + token, token + "AAAA"):
        call = api.call("SearchThreads", owner_id=owner, page_token=broken)
        await refused(call, "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")
    call = api.call("SearchThreads", owner_id=owner, page_token=token, offset=1)
    await refused(call, "INVALID_ARGUMENT", "INVALID_REQUEST")


async def test_creates_again(api: Api, owner: str) -> None:
    """B57, B58: the same create again is a retry; another one with the same id is not, whatever its request_id."""
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": f"thread-{owner}"}
    first = await api.call("CreateThread", **thread, values='{"a": 1}')
    assert await api.call("CreateThread", **thread, values='{"a": 1}') == first
    await refused(api.call("CreateThread", **thread, values='{"a": 2}'), "ALREADY_EXISTS", "ALREADY_EXISTS")
    await refused(
        api.call("CreateThread", **thread, request_id="r", values='{"a": 1}'), "ALREADY_EXISTS", "ALREADY_EXISTS"
    )
    named: dict[str, Any] = {"owner_id": owner, "thread_id": f"named-{owner}", "request_id": "r"}
    first = await api.call("CreateThread", **named)
    assert await api.call("CreateThread", **named) == first
    await refused(api.call("CreateThread", **(named | {"request_id": "s"})), "ALREADY_EXISTS", "ALREADY_EXISTS")


async def test_stale_versions_and_ended_runs(api: Api, owner: str) -> None:
    """B59, B60: ABORTED with the current version or status; a final status is FAILED_PRECONDITION."""
    assistant: dict[str, Any] = {"owner_id": owner, "assistant_id": f"a-{owner}"}
    await api.call("CreateAssistant", **assistant, graph_id="g")
    stale = await refused(api.call("UpdateAssistant", **assistant, expected_version=7), "ABORTED", "VERSION_MISMATCH")
    assert stale.metadata == {"current": "1"}
    put = api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value="1", expected_version=3)
    assert (await refused(put, "ABORTED", "VERSION_MISMATCH")).metadata == {"current": "0"}
    run: dict[str, Any] = {"owner_id": owner, "run_id": f"r-{owner}"}
    await api.call("CreateRun", **run, thread_id="t", assistant_id=assistant["assistant_id"], record_only=True)
    await api.call("UpdateRun", **run, status="RUN_STATUS_SUCCESS")
    ended = await refused(api.call("UpdateRun", **run, status="RUN_STATUS_RUNNING"), "FAILED_PRECONDITION", "RUN_ENDED")
    assert ended.metadata == {"current": "success"}
    call = api.call("UpdateRun", **run, kwargs="{}", expected_status=["RUN_STATUS_PENDING"])
    assert (await refused(call, "ABORTED", "STATUS_MISMATCH")).metadata == {"current": "success"}


async def test_stale_leases_and_broken_sequences(api: Api, owner: str) -> None:
    """B59, B60 of the queue: a token that is not the lease's is FAILED_PRECONDITION, a gap ABORTED; neither changes anything."""
    own: dict[str, Any] = {"owner_id": owner}
    await api.call("CreateAssistant", **own, assistant_id=f"a-{owner}", graph_id="g")
    run: dict[str, Any] = {**own, "run_id": f"r-{owner}"}
    place: dict[str, Any] = {"thread_id": f"t-{owner}", "assistant_id": f"a-{owner}"}
    await api.call("CreateRun", **run, **place, if_not_exists=2)
    calls: dict[str, dict[str, Any]] = {
        "HeartbeatRun": {},
        "ReleaseRun": {},
        "FinishRun": {"status": "RUN_STATUS_SUCCESS", "values": '{"a": 1}'},
        "AppendRunEvents": {"first_sequence": 1, "events": [{"type": "t"}]},
    }
    for token in (1, 2**63 - 1):
        for method, more in calls.items():
            call = api.call(method, **run, lease_token=token, **more)
            await refused(call, "FAILED_PRECONDITION", "LEASE_LOST")
    (claimed,) = (await api.call("ClaimRuns", **own, worker_id="w")).runs
    held: dict[str, Any] = {**run, "lease_token": claimed.lease_token}
    for first in (2, 2**63 - 1):
        append = api.call("AppendRunEvents", **held, first_sequence=first, events=[{"type": "t"}])
        assert (await refused(append, "ABORTED", "SEQUENCE_MISMATCH")).metadata == {"current": "0"}
    found = (await api.call("GetRun", **run)).run
    assert (found.last_sequence, found.attempt, found.lease) == (0, 1, claimed.run.lease)
    # As large as an event may be, and as many.
    assert (await api.call("AppendRunEvents", **held, first_sequence=1, events=[{}] * 1_000)).last_sequence == 1_000
    finished = (await api.call("FinishRun", **held, status="RUN_STATUS_SUCCESS")).run
    assert finished.last_sequence == 1_001
    for after in (1_001, 2**63 - 1):
        parts = await api.stream("StreamRunEvents", **run, after=after)
        assert [(list(part.events), part.run.status) for part in parts] == [([], 3)]
    # What has ended is neither asked to stop nor ended again.
    stopped = await api.call("CancelRuns", **own, run_ids=[run["run_id"]], action=2)
    assert stopped == type(stopped)()


async def test_a_batch_is_all_or_nothing_and_names_the_operation(api: Api, owner: str) -> None:
    """B62, B63: in order, also for one key twice; a bad operation is named by its index and nothing takes effect."""

    def put(key: str, value: str, **more: Any) -> dict[str, Any]:
        return {"put": {"namespace": ["a"], "key": key, "value": value, **more}}

    twice = await api.call("Batch", owner_id=owner, operations=[put("k", "1"), put("k", "2")])
    assert [result.put.item.version for result in twice.results] == [1, 2]
    bad = api.call(
        "Batch", owner_id=owner, operations=[put("k", "3"), put("n", "1"), put("k", "4", expected_version=9)]
    )
    assert (await refused(bad, "ABORTED", "VERSION_MISMATCH")).metadata == {"current": "3", "index": "2"}
    invalid = api.call("Batch", owner_id=owner, operations=[put("k", "3"), put("n", "{")])
    assert (await refused(invalid, "INVALID_ARGUMENT", "INVALID_REQUEST")).fields.keys() == {"operations[1].put.value"}
    items = (await api.call("SearchItems", owner_id=owner)).items
    assert [(item.key, item.value) for item in items] == [("k", "2")]


async def test_prefixes_are_literal(api: Api, owner: str) -> None:
    """B23, B25: whole labels, and no pattern."""
    for space in (["ab"], ["a", "b"], ["a%"], ["a_"], ["a"]):
        await api.call("PutItem", owner_id=owner, namespace=space, key="k%", value="1")
    for prefix, found in ((["a"], 2), (["a%"], 1), (["a_"], 1), (["%"], 0), (["_"], 0)):
        assert len((await api.call("SearchItems", owner_id=owner, namespace_prefix=prefix)).items) == found
    for key, found in (("k", 5), ("k%", 5), ("k_", 0), ("%", 0), ("k\\", 0)):
        assert len((await api.call("SearchItems", owner_id=owner, key_prefix=key)).items) == found


async def test_many_bad_calls_at_once(api: Api) -> None:
    """The server goes on under a burst of them."""
    rows = [row for row in ROWS if row.code == "INVALID_ARGUMENT" and len(data_of(row)) < 10_000]
    found = await asyncio.gather(*(send(api, row) for row in rows * 3), return_exceptions=True)
    assert {failure.code.name for failure in found if isinstance(failure, CallFailed)} == {"INVALID_ARGUMENT"}
    assert all(isinstance(failure, CallFailed) for failure in found)
