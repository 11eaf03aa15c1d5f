"""The texts and numbers that random requests are made of: small pools of ids, so that collisions and foreign ids are common, and what
backends disagree about."""

from __future__ import annotations

from typing import Any

# "@A", "@B" and "@system" stand for the owners of an example.
OWNERS = ("@A", "@A", "@A", "@A", "@A", "@B", "@B", "@system", "")
MADE = "made"
IDS = {
    "assistant_id": ("assistant-1", "assistant-1", "assistant-1", "assistant-%"),
    # MADE stands for what a tick made last.
    "thread_id": ("thread-1", "thread-1", "Thread-1", "thread-2", MADE),
    "run_id": ("run-é", "run-e\u0301", "run-1", "run-2", MADE),
    "cron_id": ("cron-1", "cron-_"),
    "checkpoint_id": ("state-1", "state-2", "state-3"),
}
POOL_OF = {
    "assistant_ids": "assistant_id",
    "thread_ids": "thread_id",
    "run_ids": "run_id",
    "cron_ids": "cron_id",
    "new_thread_id": "thread_id",
    "before": "checkpoint_id",
    "parent_checkpoint_id": "checkpoint_id",
    "expected_parent_id": "checkpoint_id",
}
NAMESPACES = (
    ("a", "b"),
    ("a", "b"),
    ("a", "b"),
    ("a",),
    ("a", "bc"),
    ("A",),
    ("a%",),
    ("a", "b", "é"),
    ("a/",),
    ("a-",),
)
LABELS = ("a", "b", "A", "a%", "é", "*", "a_", "bc")
KEYS = (
    *("k",) * 8,
    "K",
    "a",
    "k%",
    "k_",
    "k\\",
    "é",
    "e\u0301",
    " ",
    "k.1",
    "\U0001f600",
    "\uffff",
    "'; DROP TABLE x --",
    "\u202ek",
)
NAMES = ("", "Ärger", "ärger", "STRASSE", "straße", "a%b", "a_b", "a\\b", "İstanbul", "ΣΑΣ", "σας", "x" * 300, "\u200b")
OBJECTS = (
    "{}",
    '{"a": 1}',
    '{"a": 1.0, "b": 9007199254740993}',
    '{"a": "1"}',
    '{"a": null, "b": [1, 2, {"c": "é"}]}',
    '{"b": [1]}',
    '{"a": -0.0, "ab": 1e3, "b": 1E-7}',
    '{"a": 1, "a": 2}',
    '{"b": {"c": {"d": []}}, "": " "}',
    '{"owner": "@B", "a": true}',
    '{"owner": null}',
    '{"owner": "@A"}',
    '{"assistant_id": "assistant-1"}',
    '{"\\u00e9": "\\ud83d\\ude00", "e\u0301": "%_"}',
    '{"a": 123456789012345678901234567890.10}',
    '{"a":\t[ ] ,\n"z":{"y" :"\\n\\t\\"\\/\\b"}}',
    '{"a": "\x7f\u2028"}',
)
#: Of checkpoints: which channels have which versions, and what else is read of them.
CHECKPOINTS_JSON = (
    '{"v": 4, "channel_versions": {"a": "1", "\u00e9": 2}, "channel_values": {"b": 1.50, "a": true}}',
    '{"v": 4, "channel_versions": {"a": "2", "b": "1", "c": null}, "channel_values": {"c": null, "\u00e9": "x"}}',
    '{"v": 4, "channel_versions": {"a": "1", "b": "2"}}',
    '{"v": 3, "channel_versions": {"a": "1"}}',
    '{"v": 1.0, "channel_versions": {"b": 1.0, "a": "2"}, "channel_values": {"b": [1]}}',
    '{"channel_versions": [1], "channel_values": 7}',
    "{}",
)
CHECKPOINT_METADATA = (
    '{"run_id": "run-1", "step": 1}',
    '{"run_id": "run-\u00e9"}',
    '{"counters_since_delta_snapshot": {"a": [1, 1], "b": [1, 2]}}',
    '{"delta_writes_versioned": true}',
    '{"parents": {"": "state-1"}}',
    '{"parents": {"": "state-3"}, "a": 1}',
)
#: Of crons.
PAYLOADS = tuple(
    f'{{"multitask_strategy": {strategy}}}' for strategy in ('"reject"', '"interrupt"', '"rollback"', '"enqueue"', "1")
)
BAD_JSON = (
    "{",
    "[1,]",
    '{"a": NaN}',
    '{"a": "\\u0000"}',
    '{"a": "\\ud800"}',
    "[" * 101 + "]" * 101,
    "1e999999",
    "\ufeff{}",
    "'a'",
)
VALUES = (
    *OBJECTS,
    "1",
    "1.50",
    '"text"',
    "null",
    "true",
    "[]",
    '["a", ["b"]]',
    '{"a": "é"}',
    '{"a": "z"}',
    '{"a": "Z"}',
    '{"a": ""}',
    '{"a": 10}',
    '{"a": 9}',
    '{"a": false}',
    '{"a": {"x": 1.00}}',
    '{"a": [1.0]}',
)
OPERANDS = (
    "1",
    "1.0",
    "9.5",
    '"1"',
    '"é"',
    '"Z"',
    "null",
    "true",
    "[1]",
    '{"x": 1}',
    "-0.0",
    "9007199254740993",
    '""',
    "1e400",
)
SCHEDULES = (
    "0 0 1 1 *",
    "@yearly",
    "0 0 1 1 *",
    "@annually",
    "0 0 1 1 1",
    "@Annually",
    "30 2 29 2 *",
    "0 0 1 JAN *",
    "0 0 31 2 *",
    "* * * * * *",
    "61 * * * *",
    "x",
)
ZONES = ("", "UTC", "UTC", "Asia/Kolkata", "Europe/Berlin", "America/Sao_Paulo", "Mars/Phobos", "../etc/passwd")
TEXTS = {
    "graph_id": ("agent", "Agent", "agent-%"),
    "name": NAMES,
    "description": ("", "d", "é\n"),
    "key": KEYS,
    "key_prefix": ("", "k", "k%", "k_", "k\\", "é", "K"),
    "schedule": SCHEDULES,
    "timezone": ZONES,
    "user_id": ("", "user", "é"),
    "field": ("", "$", "é.0"),
    "next": ("node", "é"),
    "remove_metadata_keys": ("a", "b", "owner", ""),
    "request_id": ("request-1", "request-2"),
    "checkpoint_ns": ("", "", "", "sub:1", "sub", "a|sub:1"),
    "channel": ("a", "b", "a", "é", "__pregel_tasks"),
    "channels": ("a", "b", "é", "c"),
    "version": ("1", "2", "1.0", "é", "\n"),
    "task_id": ("t", "T", "é"),
    "task_path": ("", "", "~p", "é"),
    "type": ("msgpack", "empty", "", "end"),
    "worker_id": ("worker-1", "é"),
}
#: Lease tokens up to here stand for those that claims gave; that of the last place is sent with the run's id as it was drawn.
OF_CLAIMS, SEQUENCES = 5, 1000
NUMBERS: dict[str, tuple[Any, ...]] = {
    "page_size": (0, 1, 2, 3, 1000, 1, 2, 2**31 - 1, -1),
    "offset": (0, 0, 0, 1, 2, 10000, 10001),
    "index": (0, 1, 0, -1, -3, 2**31 - 1, -(2**31)),
    "value": (b"", b"\x00\xff", b"x" * 1000),
    "limit": (0, 1, 2, 1000, 2**31 - 1),
    "max_depth": (0, 1, 2, 32),
    "version": (0, 1, 2, 3),
    "expected_version": (0, 1, 1, 2, 3),
    # Over when the next call comes, or long after the test.
    "ttl_minutes": (1e-6, 60.0, 5.5, 0.0, float("nan"), 1e-9),
    "minutes": (60.0, 5.5, 1e-6, 0.0, -1.0, float("nan")),
    # Of vectors: whose squares and sums are exact, also in single precision.
    "values": (0.0, 1.0, 1.0, -0.5, 2.0, float("inf")),
    "vector": (0.0, 1.0, 1.0, -0.5, 2.0, 1e16),
    "data": (b"", b"\x00\xff", b"x" * 1000),
    "wait_seconds": (*(0.0,) * 8, 0.01, -1.0, 3600.5, float("nan")),
    # Over when the next call comes, or long after the test.
    "lease_seconds": (*(0.0, 3600.0, 3600.0, 1e-9) * 4, -1.0, float("nan"), 86401.0),
    "delay_seconds": (*(0.0, 0.0, 0.0, 3600.0, 1e-9, 31622400.0) * 2, -1.0, float("inf")),
    # Up to OF_CLAIMS it is the token of that claim, counted from the last one.
    "lease_token": (*(1,) * 16, *(2,) * 6, 3, 3, 4, 5, 2**63 - 1, 0),
    # From SEQUENCES on it is counted from the one that is right.
    "first_sequence": (*(SEQUENCES,) * 10, SEQUENCES - 1, SEQUENCES - 2, SEQUENCES + 1, 1, 2, -1),
    # Of a thread it is the position that was seen last but so many.
    "after": (0, 0, 0, 0, -1, 1, 2, 3, 2**62, -2),
}
NUMBERS_OF: dict[tuple[str, str], tuple[Any, ...]] = {
    ("FinishRunRequest", "status"): (*(3, 4, 5, 6) * 5, 0, 1, 99),
    ("CreateRunRequest", "record_only"): (False, False, False, True),
    ("CreateRunRequest", "status"): (*(0, 1) * 6, 2, 3, 4, 5, 6, 99),
    ("CreateRunRequest", "multitask_strategy"): (*(0, 1, 2, 2, 3, 4) * 3, 99),
    ("CreateRunRequest", "if_not_exists"): (*(2,) * 8, 0, 1, 99),
    ("CancelRunsRequest", "action"): (*(2,) * 6, 0, 1, 1, 99),
    ("ClaimRunsRequest", "limit"): (0, 1, 2, 100, 100, 100, 101, -1),
}
TIMES = ("2099-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2027-06-01T00:00:00.123456Z", "2001-01-01T00:00:00Z")
