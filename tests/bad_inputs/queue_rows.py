"""The rows of the catalogue for the queue, the logs of runs and the ticks of crons."""

from __future__ import annotations

from functools import partial
from typing import Any

from agentstorage.v1 import runs_pb2
from tests.bad_inputs.row import CANARY, LONG, OK, Row

_RUN: dict[str, Any] = {"thread_id": "t", "assistant_id": "a"}
_HELD: dict[str, Any] = {"run_id": "r", "lease_token": 1}
#: Calls about a lease that are right but for what a row makes wrong.
_CALLS: dict[str, dict[str, Any]] = {
    "HeartbeatRun": _HELD,
    "FinishRun": {**_HELD, "status": "RUN_STATUS_SUCCESS"},
    "ReleaseRun": _HELD,
    "AppendRunEvents": {**_HELD, "first_sequence": 1, "events": [{"type": "t"}]},
}
_READS: dict[str, dict[str, Any]] = {"StreamRunEvents": {}, "WaitRun": {}}
_SECONDS = (-1, -1e-300, -1e308, 86400.1, 1e308, "NaN", "Infinity", "-Infinity")
_TWICE = {"run_id": "r", "thread_id": "t"}
_ABSENT: dict[str, Any] = {"code": "NOT_FOUND", "reason": "NOT_FOUND"}


def _timed(seconds: int, nanos: int) -> bytes:
    """A run that is due at a time that these numbers make."""
    request = runs_pb2.CreateRunRequest(owner_id="owner", **_RUN)
    request.run_after.seconds, request.run_after.nanos = seconds, nanos
    return request.SerializeToString()


QUEUE_ROWS: list[Row] = [
    *[Row("B5", method, {**fields, "run_id": f"{CANARY}\0"}) for method, fields in (*_CALLS.items(), *_READS.items())],
    Row("B5", "ClaimRuns", {"worker_id": f"{CANARY}\0"}),
    Row("B5", "CancelRuns", {"run_ids": ["r", f"{CANARY}\0"]}),
    Row("B5", "StreamRunEvents", {"thread_id": f"{CANARY}\0"}),
    Row("B5", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "events": [{"type": f"{CANARY}\0"}]}),
    *[
        Row(number, "FinishRun", {**_CALLS["FinishRun"], name: text})
        for number, text in (
            ("B6", f'{{"{CANARY}": "\\u0000"}}'),
            ("B7", f'{{"{CANARY}": "\\ud800"}}'),
            ("B8", f'{{"{CANARY}": NaN}}'),
            ("B10", f'{{"{CANARY}": 1e200000}}'),
            ("B11", '{"a":' * 101 + "1" + "}" * 101),
            ("B15", "{'a': 1}"),
        )
        for name in ("values", "interrupts", "error")
    ],
    *[
        Row("B14", "FinishRun", {**_CALLS["FinishRun"], name: text})
        for name in ("values", "interrupts")
        for text in ("1", '"x"', "null", "[]")
    ],
    *[Row("B16", method, {**fields, "run_id": ""}) for method, fields in (*_CALLS.items(), ("WaitRun", {}))],
    Row("B16", "ClaimRuns", {"worker_id": ""}),
    Row("B16", "ClaimRuns", {}),
    Row("B16", "CancelRuns", {"run_ids": [""]}),
    Row("B16", "CancelRuns", {}),
    Row("B16", "CancelRuns", {"run_ids": [], "thread_id": ""}),
    # A run or a thread, and not both.
    Row("B16", "StreamRunEvents", {}),
    Row("B16", "StreamRunEvents", {"run_id": "", "thread_id": "", "after": 1}),
    Row("B35", "StreamRunEvents", {**_TWICE}),
    Row("B35", "StreamRunEvents", {**_TWICE, "after": -1}),
    *[Row("B17", method, {**fields, "run_id": LONG}) for method, fields in (*_CALLS.items(), *_READS.items())],
    Row("B17", "ClaimRuns", {"worker_id": LONG}),
    Row("B17", "ClaimRuns", {"worker_id": "é" * 128}),
    Row("B17", "CancelRuns", {"thread_id": LONG}),
    Row("B17", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "events": [{"type": LONG}]}),
    Row("B17", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "events": [{"type": "é" * 128}]}),
    *[Row("B18", "ClaimRuns", {"worker_id": f"a{character}b"}) for character in "\n\x7f\x85"],
    *[Row("B27", "ClaimRuns", {"worker_id": "w", "limit": limit}) for limit in (-1, 101, 2**31 - 1, -(2**31))],
    *[
        Row("B27", method, {"limit": limit})
        for method in ("SweepRuns", "FireDueCrons")
        for limit in (-1, 1001, 2**31 - 1)
    ],
    *[
        Row("B27", method, {**fields, "lease_token": token})
        for method, fields in _CALLS.items()
        for token in (0, -1, -(2**63))
    ],
    *[
        Row("B27", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "first_sequence": first})
        for first in (0, -1, -(2**63))
    ],
    *[Row("B29", "StreamRunEvents", {"run_id": "r", "after": after}) for after in (-2, -(2**63))],
    *[Row("B29", "StreamRunEvents", {"thread_id": "t", "after": after}) for after in (-2, -(2**63))],
    Row("B33", "CreateRun", {**_RUN, "if_not_exists": 99}),
    Row("B33", "CreateRun", {**_RUN, "multitask_strategy": -1}),
    *[Row("B33", "CancelRuns", {"run_ids": ["r"], "action": action}) for action in (3, 99, -1)],
    *[Row("B33", "FinishRun", {**_HELD, "status": status}) for status in (7, 99, -1)],
    # Known, and none that a run can end with.
    *[Row("B34", "FinishRun", {**_HELD, "status": status}) for status in (0, 1, 2)],
    Row("B34", "CreateRun", {**_RUN, "record_only": True, "if_not_exists": 2}),
    Row("B34", "CreateRun", {**_RUN, "record_only": True, "if_not_exists": 1}),
    Row("B34", "CreateRun", {**_RUN, "record_only": True, "run_after": "2100-01-01T00:00:00Z"}),
    *[
        Row("B36", "CreateRun", raw=partial(_timed, seconds, nanos))
        for seconds, nanos in (
            (253402300800, 0),
            (-62135596801, 0),
            (2**62, 0),
            (4_000_000_000, 10**9),
            (4_000_000_000, -1),
        )
    ],
    *[Row("B37", "ClaimRuns", {"worker_id": "w", "lease_seconds": seconds}) for seconds in _SECONDS],
    *[Row("B37", "HeartbeatRun", {**_HELD, "lease_seconds": seconds}) for seconds in _SECONDS],
    *[
        Row("B37", "ReleaseRun", {**_HELD, "delay_seconds": seconds})
        for seconds in (-1, -1e-300, 31622400.5, 1e308, "NaN", "Infinity", "-Infinity")
    ],
    *[
        Row("B37", method, {**fields, "wait_seconds": seconds})
        for method, fields in (("ClaimRuns", {"worker_id": "w"}), ("WaitRun", {"run_id": "r"}))
        for seconds in (-1, -1e-300, 3600.1, 1e308, "NaN", "Infinity", "-Infinity")
    ],
    Row("B43", "CancelRuns", {"run_ids": ["x"] * 1_001}),
    Row("B44", "SearchRuns", {"fields": "lease_token"}),
    Row("B44", "SearchRuns", {"fields": f"lease.{CANARY.replace('-', '_')}"}),
    *[Row("B54", "ClaimRuns", {"owner_id": owner, "worker_id": "w"}) for owner in ("", "*", "%")],
    Row("B62", "AppendRunEvents", {**_HELD, "first_sequence": 1, "events": []}),
    Row("B62", "AppendRunEvents", {**_HELD, "first_sequence": 1, "events": [{"type": "t"}] * 1_001}),
    # What is odd and yet right.
    *[Row("B61", method, fields, **_ABSENT) for method, fields in _CALLS.items()],
    *[Row("B61", "HeartbeatRun", {"run_id": "r", "lease_token": token}, **_ABSENT) for token in (2**63 - 1, 2**32)],
    Row("B61", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "first_sequence": 2**63 - 1}, **_ABSENT),
    Row("B61", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "events": [{}] * 1_000}, **_ABSENT),
    Row("B61", "AppendRunEvents", {**_CALLS["AppendRunEvents"], "events": [{"type": "t" * 255}]}, **_ABSENT),
    Row("B61", "CancelRuns", {"run_ids": ["nowhere"], "thread_id": "nowhere"}, **_ABSENT),
    Row("B61", "CancelRuns", {"run_ids": ["nowhere"], "action": 2}, **OK),
    *[Row("B61", method, {**fields, "run_id": "nowhere"}, **_ABSENT) for method, fields in _READS.items()],
    *[
        Row("B61", "StreamRunEvents", {"thread_id": "nowhere", "after": after}, **_ABSENT)
        for after in (-1, 0, 2**63 - 1)
    ],
    Row("B61", "WaitRun", {"run_id": "nowhere", "wait_seconds": 3600}, **_ABSENT),
    *[
        Row("B26", "ClaimRuns", {"worker_id": worker, "limit": limit}, **OK)
        for worker, limit in (("w", 0), ("w", 100), ("'; DROP TABLE runs; --", 1), ("a" * 255, 1), ("\u202eb", 1))
    ],
    *[Row("B37", "ClaimRuns", {"worker_id": "w", "lease_seconds": seconds}, **OK) for seconds in (1e-300, 86400)],
    Row("B37", "ClaimRuns", {"worker_id": "w", "wait_seconds": 1e-300}, **OK),
    *[Row("B26", method, {"limit": limit}, **OK) for method in ("SweepRuns", "FireDueCrons") for limit in (0, 1000)],
]
