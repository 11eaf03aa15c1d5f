"""What workers, followers and schedulers ask again and again, on tables of 20,000 rows: none of it reads a whole table."""

from __future__ import annotations

from typing import Any

from storage_service.caller import AllOwners
from tests.plans.filled import Bench, whole


def calls_of(number: int) -> list[tuple[str, dict[str, Any]]]:
    """Calls of every method of the queue, about the runs of the owner of this number."""
    queued, leased, second = (f"run-{kind + number}" for kind in (1000, 1200, 11200))
    held: dict[str, Any] = {"run_id": leased, "lease_token": 1200 + number}
    thread, assistant = {"thread_id": f"thread-{1000 + number}"}, {"assistant_id": f"assistant-{number}"}
    events: dict[str, Any] = {"first_sequence": 2, "events": [{"type": "t"}, {"type": "u"}]}
    rollback = {"action": "CANCEL_ACTION_ROLLBACK"}
    return [
        ("ClaimRuns", {"worker_id": "w", "limit": 10}),
        ("ClaimRuns", {"worker_id": "w", "wait_seconds": 0.05}),
        ("HeartbeatRun", held),
        ("AppendRunEvents", {**held, **events}),
        ("AppendRunEvents", {**held, **events}),
        ("AppendRunEvents", {**held, "first_sequence": 9, "events": [{"type": "t"}]}),
        ("StreamRunEvents", {"run_id": f"run-{number}"}),
        ("StreamRunEvents", {"run_id": leased, "after": 1}),
        ("StreamRunEvents", {"thread_id": f"thread-{1200 + number}"}),
        ("StreamRunEvents", {"thread_id": f"thread-{1200 + number}", "after": -1}),
        ("WaitRun", {"run_id": f"run-{number}"}),
        ("WaitRun", {"run_id": leased, "wait_seconds": 0.05}),
        ("ReleaseRun", {**held, "delay_seconds": 5}),
        ("HeartbeatRun", held),
        (
            "FinishRun",
            {"run_id": second, "lease_token": 11200 + number, "status": "RUN_STATUS_SUCCESS", "values": "{}"},
        ),
        ("FinishRun", {"run_id": second, "lease_token": 1, "status": "RUN_STATUS_SUCCESS"}),
        *[
            ("CreateRun", {**thread, **assistant, "multitask_strategy": f"MULTITASK_STRATEGY_{strategy}"})
            for strategy in ("REJECT", "ENQUEUE", "INTERRUPT", "ROLLBACK")
        ],
        ("CreateRun", {"thread_id": f"new-{number}", **assistant, "if_not_exists": "IF_NOT_EXISTS_CREATE"}),
        ("CancelRuns", {"run_ids": [queued, "x"]}),
        ("CancelRuns", {"run_ids": [f"run-{11000 + number}", "x"], **rollback}),
        ("CancelRuns", {"thread_id": f"thread-{1400 + number}"}),
        ("CancelRuns", {"thread_id": f"thread-{11400 + number}", **rollback}),
        ("SweepRuns", {"limit": 1}),
        ("SweepRuns", {}),
        ("FireDueCrons", {"limit": 2}),
        ("GetRunStats", {}),
    ]


QUEUE_CALLS = calls_of(7)


async def test_no_call_of_an_owner_reads_a_whole_table(bench: Bench) -> None:
    found = []
    for method, fields in QUEUE_CALLS:
        found += [
            (method, fields, *read) for read in whole(await bench.plans(method, {"owner_id": "owner-7", **fields}))
        ]
    assert not found


async def test_no_call_of_a_worker_of_all_owners_reads_a_whole_table(bench: Bench) -> None:
    found = []
    for method, fields in calls_of(9):
        # How the whole queue stands is about all runs there are.
        if method != "GetRunStats":
            found += [(method, fields, *read) for read in whole(await bench.plans(method, fields))]
    assert not found


async def test_no_upkeep_reads_a_whole_table(bench: Bench) -> None:
    rows = bench.store.seen_by(AllOwners())
    works = {
        "leases": lambda: rows.sweep_runs(100, 5),
        "events": lambda: rows.sweep_events(50, 7 * 86400.0),
        "crons": lambda: rows.due_crons(100),
    }
    assert {name: whole(await bench.plans_of(work)) for name, work in works.items()} == {name: [] for name in works}
