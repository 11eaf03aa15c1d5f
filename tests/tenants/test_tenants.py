"""No owner reads, changes or finds out about another's rows: every field of every method that can name a row, on both backends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.postgres_server import PostgresServer
from tests.service import METHODS, Api, ServerProcess, connected
from tests.tenants.matrix import ALL, check, forget
from tests.tenants.queue_scenarios import QUEUE_SCENARIOS
from tests.tenants.scenarios import PAGED, SCENARIOS, Scenario

_TAKEN = "an id of another owner is ALREADY_EXISTS: scenario taken_ids"
_MADE = "a thread that is nowhere is made, another owner's is NOT_FOUND: scenario written_threads"
_TOKEN = "a token is bound to its owner: scenario page_tokens"
#: Fields that are not held to the rule of the matrix, with the reason and what asserts them instead.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("CreateAssistant", "assistant_id"): _TAKEN,
    ("CreateThread", "thread_id"): _TAKEN,
    ("CreateRun", "run_id"): _TAKEN,
    ("CreateCron", "cron_id"): _TAKEN,
    ("CopyThread", "new_thread_id"): _TAKEN,
    **{(method, "thread_id"): _MADE for method in ("PutCheckpoint", "PutWrites", "CommitSuperstep")},
    ("CopyThreadCheckpoints", "new_thread_id"): _MADE,
    **{(method, "page_token"): _TOKEN for method in PAGED},
    ("ListCheckpoints", "before"): "is compared with ids, and names no row",
    ("GetServerInfo", ""): "names no row and gives none",
    ("Truncate", ""): "deletes the rows of all owners; needs the right admin and a setting that is off by default",
}
#: Every other field. Written out, so that a new method or field has to be thought about.
HELD: dict[str, str] = {
    "CreateAssistant": "metadata",
    "GetAssistant": "assistant_id",
    "UpdateAssistant": "assistant_id metadata",
    "DeleteAssistant": "assistant_id",
    "SearchAssistants": "assistant_ids metadata",
    "CountAssistants": "assistant_ids metadata",
    "ListAssistantVersions": "assistant_id metadata",
    "SetLatestAssistantVersion": "assistant_id",
    "CreateThread": "metadata values",
    "GetThread": "thread_id",
    "UpdateThread": "thread_id metadata values",
    "DeleteThread": "thread_id",
    "SearchThreads": "thread_ids metadata values",
    "CountThreads": "thread_ids metadata values",
    "CopyThread": "thread_id",
    "SetThreadStatus": "thread_id values",
    "GetThreadState": "thread_id",
    "AddThreadState": "thread_id checkpoint_id values metadata parent_checkpoint",
    "ListThreadStates": "thread_id before metadata",
    "PruneThreads": "thread_ids",
    "CreateRun": "thread_id assistant_id metadata",
    "GetRun": "run_id thread_id",
    "SearchRuns": "run_ids thread_id assistant_id metadata",
    "CountRuns": "run_ids thread_id assistant_id metadata",
    "UpdateRun": "run_id metadata",
    "DeleteRun": "run_id thread_id",
    "GetActiveRun": "thread_id",
    "CancelRuns": "run_ids thread_id",
    "ClaimRuns": "worker_id",
    "HeartbeatRun": "run_id lease_token",
    "FinishRun": "run_id lease_token values",
    "ReleaseRun": "run_id lease_token",
    "AppendRunEvents": "run_id lease_token",
    "StreamRunEvents": "run_id thread_id",
    "WaitRun": "run_id",
    "GetRunStats": "",
    "SweepRuns": "",
    "Batch": "operations.put.namespace operations.put.key operations.put.metadata operations.get.namespace operations.get.key "
    "operations.delete.namespace operations.delete.key operations.search.namespace_prefix operations.search.key_prefix "
    "operations.list_namespaces.matches.path",
    "PutItem": "namespace key metadata",
    "GetItem": "namespace key",
    "DeleteItem": "namespace key",
    "SearchItems": "namespace_prefix key_prefix",
    "ListNamespaces": "matches.path",
    "DeleteNamespace": "namespace",
    "CreateCron": "assistant_id thread_id user_id metadata",
    "GetCron": "cron_id",
    "UpdateCron": "cron_id user_id metadata",
    "DeleteCron": "cron_id",
    "SearchCrons": "cron_ids assistant_id thread_id metadata",
    "CountCrons": "cron_ids assistant_id thread_id metadata",
    "FireDueCrons": "",
    "PutCheckpoint": "checkpoint_ns checkpoint_id parent_checkpoint_id metadata channels.version expected_parent_id",
    "PutWrites": "checkpoint_ns checkpoint_id writes.task_id",
    "CommitSuperstep": "checkpoint_ns checkpoint_id parent_checkpoint_id metadata channels.version expected_parent_id values "
    "writes.checkpoint_ns writes.checkpoint_id writes.writes.task_id",
    "GetCheckpoint": "thread_id checkpoint_ns checkpoint_id",
    "ListCheckpoints": "thread_id checkpoint_ns checkpoint_id metadata",
    "DeleteThreadCheckpoints": "thread_id",
    "DeleteRunCheckpoints": "run_ids",
    "CopyThreadCheckpoints": "thread_id",
    "PruneCheckpoints": "thread_ids",
    "GetDeltaChannelHistory": "thread_id checkpoint_ns checkpoint_id",
    "GetOwnerUsage": "",
    "EraseOwner": "",
    "ExportOwner": "",
}
ENTRIES = sorted((method, field) for method, fields in HELD.items() for field in ("", *fields.split()))


@pytest.fixture(scope="module")
def servers(postgres_server: PostgresServer) -> Iterator[dict[str, ServerProcess]]:
    """Servers of these tests alone: what claims or sweeps runs of all owners, as other tests do, would change rows of those here."""
    forget()
    url = postgres_server.url(postgres_server.create_database())
    running = {"memory": ServerProcess("memory").start(), "postgres": ServerProcess("postgres", url).start()}
    yield running
    for server in running.values():
        server.stop()
    forget()


@pytest.fixture(params=("memory-grpc", "memory-exchange", "postgres-exchange"))
async def api(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> AsyncIterator[Api]:
    """Each backend over gRPC, by plain RPCs and through the exchange."""
    backend, _, way = request.param.partition("-")
    async with connected(servers[backend].target, backend, way) as api:
        yield api


def test_every_method_and_field_has_an_entry() -> None:
    assert {*ENTRIES, *EXCEPTIONS} == ALL
    assert not EXCEPTIONS.keys() & set(ENTRIES)
    assert {method for method, field in ALL if field == ""} == METHODS.keys()


@pytest.mark.parametrize(("method", "field"), ENTRIES)
async def test_a_foreign_id_is_an_absent_id(api: Api, method: str, field: str) -> None:
    await check(api, method, field)


@pytest.mark.parametrize("scenario", [*SCENARIOS, *QUEUE_SCENARIOS], ids=lambda scenario: scenario.__name__)
async def test_scenario(api: Api, scenario: Scenario) -> None:
    await scenario(api)
