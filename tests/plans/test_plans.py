"""Every statement that the service can send, on tables of 20,000 rows: none reads a whole table, and each order has its index."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from agentstorage.v1 import assistants_pb2, crons_pb2, runs_pb2, threads_pb2
from tests.plans.filled import OWNER, Bench, whole
from tests.plans.test_queue_plans import QUEUE_CALLS
from tests.service import METHODS

#: Methods about all that an owner has: on a table of this size a scan may be as cheap as the owner's part through an index. They must
#: have that way, which larger tables make them take. (Calls without an owner that count, or filter by what no index begins with, are
#: about the rows of all owners and read them all.)
BULK = frozenset({"ExportOwner", "GetOwnerUsage"})


def _searches(method: str, sort: Any, filters: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A search in every order, with every filter by itself, in pairs, and with an offset."""
    orders = ("SORT_ORDER_ASC", "SORT_ORDER_DESC")
    for number, order in itertools.product(sort.values(), orders):
        yield method, {"sort_by": sort.Name(number), "sort_order": order}
        yield method, {"sort_by": sort.Name(number), "sort_order": order, "metadata": '{"n": 7}'}
    for size in (1, 2):
        for names in itertools.combinations(filters, size):
            fields = {name: filters[name] for name in names}
            yield method, fields
            yield method.replace("Search", "Count"), fields
    yield method, {"offset": 100, "page_size": 1000}
    yield method, {"fields": "metadata"}
    yield method.replace("Search", "Count"), {}


_A, _T, _R, _C = {"assistant_id": "assistant-7"}, {"thread_id": "thread-7"}, {"run_id": "run-7"}, {"cron_id": "cron-7"}
_I = {"namespace": ["space", "7"], "key": "key-7"}
_K = {"checkpoint_id": "2"}
_V = {"channel": "c", "version": "2", "type": "msgpack"}
_W = {"task_id": "t", "channel": "c"}
_MANY = {"metadata": '{"n": 7}'}
_NEW_CRON = {"schedule": "@daily"}
CALLS: list[tuple[str, dict[str, Any]]] = [
    *_searches(
        "SearchAssistants",
        assistants_pb2.AssistantSort,
        {"assistant_ids": ["assistant-7", "x"], "graph_id": "graph-7", "name": "7", **_MANY},
    ),
    *_searches(
        "SearchThreads",
        threads_pb2.ThreadSort,
        {"thread_ids": ["thread-7", "x"], "statuses": [2], "values": '{"n": 7}', **_MANY},
    ),
    *_searches("SearchRuns", runs_pb2.RunSort, {"run_ids": ["run-7", "x"], **_T, **_A, "statuses": [1, 2], **_MANY}),
    *_searches("SearchCrons", crons_pb2.CronSort, {"cron_ids": ["cron-7", "x"], **_T, **_A, "enabled": True, **_MANY}),
    *[
        (
            "SearchItems",
            {"sort_by": sort, "sort_order": order, **more},
        )
        for sort in ("ITEM_SORT_UPDATED_AT", "ITEM_SORT_KEY")
        for order in ("SORT_ORDER_ASC", "SORT_ORDER_DESC")
        for more in (
            {},
            {"namespace_prefix": ["space"]},
            {"namespace_prefix": ["space", "7"], "exact_namespace": True},
            {"key_prefix": "key-7"},
            {"filters": [{"key": "n", "operator": "FILTER_OPERATOR_GT", "operand": "7"}]},
            {"refresh_ttl": True},
        )
    ],
    ("SearchItems", {"vector": [1, 2, 3]}),
    ("SearchItems", {"vector": [1, 2, 3], "namespace_prefix": ["space", "7"], "refresh_ttl": True}),
    ("ListNamespaces", {}),
    ("ListNamespaces", {"matches": [{"path": ["space"]}], "max_depth": 1}),
    ("ListNamespaces", {"matches": [{"path": ["7"], "match_type": "NAMESPACE_MATCH_TYPE_SUFFIX"}]}),
    ("GetItem", _I),
    ("GetItem", {**_I, "refresh_ttl": True}),
    ("PutItem", {**_I, "value": "{}"}),
    ("PutItem", {**_I, "value": "{}", "expected_version": 1}),
    ("PutItem", {**_I, "value": "{}", "expected_version": 0}),
    (
        "Batch",
        {
            "operations": [
                {"get": _I},
                {"put": {**_I, "value": "1"}},
                {"delete": _I},
                {"search": {}},
                {"list_namespaces": {}},
            ]
        },
    ),
    ("DeleteItem", {**_I, "allow_missing": True}),
    ("DeleteNamespace", {"namespace": ["space", "7"]}),
    ("GetAssistant", _A),
    ("UpdateAssistant", {**_A, "name": "x", "metadata": "{}"}),
    ("UpdateAssistant", {**_A, "expected_version": 99}),
    ("ListAssistantVersions", _A),
    ("ListAssistantVersions", {**_A, "metadata": '{"n": 7}'}),
    ("SetLatestAssistantVersion", {**_A, "version": 1}),
    ("CreateAssistant", {**_A, "graph_id": "x", "if_exists": "IF_EXISTS_DO_NOTHING"}),
    ("GetThread", _T),
    ("UpdateThread", {**_T, "values": "{}", "expected_status": [1]}),
    ("UpdateThread", {**_T, "metadata": "{}", "remove_metadata_keys": ["a"]}),
    ("SetThreadStatus", _T),
    ("AddThreadState", _T),
    ("AddThreadState", {**_T, "checkpoint_id": "state-1"}),
    ("AddThreadState", {**_T, "parent_checkpoint": "null"}),
    ("GetThreadState", _T),
    ("ListThreadStates", _T),
    ("ListThreadStates", {**_T, "before": "state-1", "metadata": "{}", "offset": 1}),
    ("CopyThread", {**_T, "new_thread_id": "copy"}),
    ("CreateThread", {**_T, "if_exists": "IF_EXISTS_DO_NOTHING"}),
    ("CreateRun", {**_T, **_A}),
    ("CreateRun", {**_T, **_A, "record_only": True}),
    ("GetRun", {**_R, **_T}),
    ("GetActiveRun", _T),
    ("UpdateRun", {**_R, "status": "RUN_STATUS_ERROR"}),
    ("DeleteRun", _R),
    ("CreateCron", {**_T, **_A, **_NEW_CRON}),
    ("CreateCron", {**_T, **_A, **_NEW_CRON, "record_only": True}),
    ("GetCron", _C),
    ("UpdateCron", {**_C, "payload": "{}"}),
    ("UpdateCron", {**_C, **_NEW_CRON}),
    ("DeleteCron", _C),
    ("PutCheckpoint", {**_T, **_K, "checkpoint": "{}", "channels": [_V]}),
    ("PutCheckpoint", {**_T, **_K, "channels": [_V]}),
    ("PutCheckpoint", {**_T, **_K, "checkpoint": "{}", "expected_parent_id": "1"}),
    ("PutCheckpoint", {"thread_id": "new", **_K, "checkpoint": "{}"}),
    ("PutWrites", {**_T, **_K, "writes": [_W]}),
    ("CommitSuperstep", {**_T, **_K, "checkpoint": "{}", "writes": [{**_K, "writes": [_W]}], "status": 1}),
    ("GetCheckpoint", _T),
    ("GetCheckpoint", {**_T, **_K}),
    ("GetDeltaChannelHistory", {**_T, "channels": ["c"]}),
    ("GetDeltaChannelHistory", {**_T, **_K, "channels": ["c", "d"]}),
    *[
        ("ListCheckpoints", {**thread, **more, **summary})
        for thread in ({}, _T)
        for summary in ({}, {"summary": True})
        for more in (
            {},
            {"checkpoint_ns": ""},
            {"checkpoint_ns": "", "before": "2", "limit": 1},
            {"checkpoint_id": "1"},
            {"metadata": '{"run_id": "run-7"}'},
        )
    ],
    ("CopyThreadCheckpoints", {**_T, "new_thread_id": "thread-407"}),
    ("DeleteRunCheckpoints", {"run_ids": ["run-607", "run-807"]}),
    ("PruneCheckpoints", {"thread_ids": ["thread-7", "x"], "strategy": "PRUNE_STRATEGY_KEEP_LATEST"}),
    ("PruneCheckpoints", {"thread_ids": ["thread-207", "x"], "strategy": "PRUNE_STRATEGY_DELETE"}),
    ("DeleteThreadCheckpoints", _T),
    ("PruneThreads", {"thread_ids": ["thread-207", "x"], "strategy": "PRUNE_STRATEGY_KEEP_LATEST"}),
    ("PruneThreads", {"thread_ids": ["thread-407", "x"], "strategy": "PRUNE_STRATEGY_DELETE"}),
    ("DeleteThread", _T),
    ("DeleteAssistant", {**_A, "delete_threads": True}),
    ("DeleteAssistant", {"assistant_id": "assistant-207"}),
    ("ExportOwner", {}),
    ("GetOwnerUsage", {}),
    ("EraseOwner", {"owner_id": "owner-8"}),
]
#: Calls without an owner that an index must still serve: by id, by what hangs on an id, and the newest of all.
UNSCOPED: list[tuple[str, dict[str, Any]]] = [
    ("GetAssistant", {"assistant_id": "assistant-9"}),
    ("GetThread", {"thread_id": "thread-9"}),
    ("GetThreadState", {"thread_id": "thread-9"}),
    ("ListThreadStates", {"thread_id": "thread-9"}),
    ("AddThreadState", {"thread_id": "thread-9"}),
    ("UpdateThread", {"thread_id": "thread-9", "values": "{}"}),
    ("GetRun", {"run_id": "run-9"}),
    ("SearchRuns", {"thread_id": "thread-9"}),
    ("SearchRuns", {"assistant_id": "assistant-9"}),
    ("GetActiveRun", {"thread_id": "thread-9"}),
    ("CreateRun", {"thread_id": "thread-9", "assistant_id": "assistant-9", "record_only": True}),
    ("SearchThreads", {"thread_ids": ["thread-9"]}),
    ("SearchAssistants", {}),
    ("SearchThreads", {}),
    ("SearchRuns", {}),
    ("SearchCrons", {}),
    ("SearchItems", {}),
    ("GetItem", {"namespace": ["a"], "key": "k"}),
    ("PutItem", {"namespace": ["a"], "key": "k", "value": "1"}),
    ("PutCheckpoint", {"thread_id": "thread-9", **_K, "checkpoint": "{}", "channels": [_V]}),
    ("PutWrites", {"thread_id": "thread-9", **_K, "writes": [_W]}),
    ("GetCheckpoint", {"thread_id": "thread-9"}),
    ("GetDeltaChannelHistory", {"thread_id": "thread-9", "channels": ["c"]}),
    ("ListCheckpoints", {"thread_id": "thread-9"}),
    ("CopyThreadCheckpoints", {"thread_id": "thread-9", "new_thread_id": "thread-10"}),
    ("DeleteRunCheckpoints", {"run_ids": ["run-11"]}),
    ("PruneCheckpoints", {"thread_ids": ["thread-9"], "strategy": "PRUNE_STRATEGY_KEEP_LATEST"}),
    ("DeleteThreadCheckpoints", {"thread_id": "thread-9"}),
    ("DeleteThread", {"thread_id": "thread-9"}),
    ("DeleteAssistant", {"assistant_id": "assistant-9", "delete_threads": True}),
]


def test_every_method_is_explained() -> None:
    assert {method for method, _ in (*CALLS, *QUEUE_CALLS)} == METHODS.keys() - {"GetServerInfo", "Truncate"}


async def test_no_call_of_an_owner_reads_a_whole_table(bench: Bench) -> None:
    found = []
    for method, fields in CALLS:
        await bench.connection.execute(b"SET enable_seqscan = off" if method in BULK else b"RESET enable_seqscan")
        found += [(method, fields, *read) for read in whole(await bench.plans(method, {"owner_id": OWNER, **fields}))]
    await bench.connection.execute(b"RESET enable_seqscan")
    assert not found


async def test_no_call_by_id_or_for_the_newest_reads_a_whole_table(bench: Bench) -> None:
    found = []
    for method, fields in UNSCOPED:
        found += [(method, fields, *read) for read in whole(await bench.plans(method, fields))]
    assert not found


#: The index of each order, by the fields of the search. Assistants are those of two owners, the system's too.
ORDERS: dict[str, dict[str, str]] = {
    "SearchThreads": {
        "CREATED_AT": "ix_threads_created_at",
        "UPDATED_AT": "ix_threads_updated_at",
        "STATE_UPDATED_AT": "ix_threads_state_updated_at",
        "STATUS": "ix_threads_status",
        "THREAD_ID": "ix_threads_id",
    },
    "SearchRuns": {
        "CREATED_AT": "ix_runs_created_at",
        "UPDATED_AT": "ix_runs_updated_at",
        "STATUS": "ix_runs_status",
        "RUN_ID": "ix_runs_id",
    },
    "SearchCrons": {
        "CREATED_AT": "ix_crons_created_at",
        "UPDATED_AT": "ix_crons_updated_at",
        "NEXT_RUN_DATE": "ix_crons_next_run_date",
        "END_TIME": "ix_crons_end_time",
        "ASSISTANT_ID": "ix_crons_owner_assistant",
        "THREAD_ID": "ix_crons_owner_thread",
        "CRON_ID": "ix_crons_id",
    },
    "SearchItems": {"UPDATED_AT": "ix_store_items_updated_at", "KEY": "ix_store_items_key"},
}


@pytest.mark.parametrize("method", ORDERS)
async def test_each_order_has_its_index(bench: Bench, method: str) -> None:
    prefix = f"{method.removeprefix('Search').removesuffix('s').upper()}_SORT_"
    for (sort, index), order in itertools.product(ORDERS[method].items(), ("SORT_ORDER_ASC", "SORT_ORDER_DESC")):
        fields = {"owner_id": OWNER, "sort_by": prefix + sort, "sort_order": order}
        [(_, nodes)] = await bench.plans(method, fields)
        assert {node["Index Name"] for node in nodes if "Index Name" in node} == {index}, (sort, order)
        assert not [node for node in nodes if node["Node Type"] in ("Sort", "Incremental Sort")], (sort, order)


async def test_a_later_page_begins_in_the_index(bench: Bench) -> None:
    for method, orders in ORDERS.items():
        if method == "SearchItems":
            continue
        prefix = f"{method.removeprefix('Search').removesuffix('s').upper()}_SORT_"
        for (sort, index), order in itertools.product(orders.items(), ("SORT_ORDER_ASC", "SORT_ORDER_DESC")):
            fields: dict[str, Any] = {"owner_id": OWNER, "sort_by": prefix + sort, "sort_order": order, "page_size": 10}
            token = (await bench.api.call(method, **fields)).next_page_token
            [(_, nodes)] = await bench.plans(method, {**fields, "page_token": token})
            [scan] = [node for node in nodes if "Index Name" in node]
            assert scan["Index Name"] == index
            assert (">" if order.endswith("ASC") else "<") in scan["Index Cond"], (sort, order, scan)
