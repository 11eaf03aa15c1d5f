"""Inputs that no client should send, by the rows of the catalogue of bad inputs, B1 to B72, with the status each gets.

A row is a request as fields, or as raw bytes, with the code and reason of its failure; "OK" where it is taken. CANARY stands in the
inputs for what no answer and no log may repeat.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from agentstorage.v1 import store_pb2, threads_pb2
from tests.bad_inputs.queue_rows import QUEUE_ROWS
from tests.bad_inputs.row import CANARY, LONG, OK, Row

#: Rows of the catalogue that have nothing to ask of this service, with the reason. Those in OTHERS are tests of their own.
NOT_APPLICABLE = {
    "B13": "JSON travels as text, and the empty text means absent; see B13 of the rows for a required one",
    "B20": "ids are opaque texts; none has to be a UUID",
    "B42": "no method takes a jsonpath or a regular expression",
    "B56": "ids are global with an owner column: a taken id is ALREADY_EXISTS (tests/tenants, scenario taken_ids)",
    "B68": "no method takes a stream",
    "B69": "checkpoints are no part of this API yet",
    "B70": "vectors are no part of this API yet",
}


def _thread(owner: str = "owner") -> bytes:
    return threads_pb2.CreateThreadRequest(owner_id=owner).SerializeToString()


def _text_field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def _json(number: str, *texts: str, **how: Any) -> list[Row]:
    """Each text as the values of a thread and as the metadata of one."""
    return [
        Row(number, "CreateThread", {name: text}, **how)
        for text in texts
        for name in (("values", "metadata") if text.lstrip("\ufeff")[:1] == "{" else ("values",))
    ]


_PLACE: dict[str, Any] = {"namespace": ["a"], "key": "k"}
_CRON: dict[str, Any] = {"assistant_id": "a", "record_only": True}


def _item(number: str, **fields: Any) -> Row:
    return Row(number, "PutItem", {**_PLACE, "value": "1", **fields})


ROWS: list[Row] = [
    Row("B1", "CreateThread", raw=lambda: _thread(CANARY)[:-3]),
    Row("B1", "CreateThread", raw=lambda: b"\x0a\xff\xff\xff\xff\x0f" + CANARY.encode()),
    Row("B2", "CreateThread", raw=lambda: b"\xff\xfe\x07\x00" + CANARY.encode()),
    Row("B2", "Batch", raw=lambda: bytes(range(256))),
    Row("B3", "CreateThread", raw=lambda: _thread() + _text_field(2, b"\xc3(" + CANARY.encode())),
    Row("B4", "CreateThread", raw=lambda: _thread() + _text_field(2, b"\xed\xa0\x80" + CANARY.encode())),
    *[Row("B5", "CreateThread", {name: f"{CANARY}\0"}) for name in ("thread_id", "request_id", "owner_id")],
    Row("B5", "CreateAssistant", {"graph_id": f"{CANARY}\0"}),
    Row("B5", "SearchAssistants", {"name": f"{CANARY}\0"}),
    Row("B5", "UpdateThread", {"thread_id": "x", "remove_metadata_keys": [f"{CANARY}\0"]}),
    _item("B5", key=f"{CANARY}\0"),
    _item("B5", namespace=[f"{CANARY}\0"]),
    *_json("B6", f'{{"{CANARY}": "\\u0000"}}', f'{{"{CANARY}\\u0000": 1}}', '"\\u0000"'),
    *_json("B7", f'{{"{CANARY}": "\\ud800"}}', '["\\udc00\\ud800"]', '{"\\ud800": 1}'),
    *_json("B8", f'{{"{CANARY}": NaN}}', "Infinity", "[-Infinity]"),
    *_json("B10", f'{{"{CANARY}": 1e200000}}', "1e-200000", "1" * 140_000, "1e99999999999999999999"),
    *_json("B11", "[" * 20_000 + "]" * 20_000, '{"a":' * 101 + "1" + "}" * 101, "[" * 1_000_000),
    _item("B13", value=""),
    *[Row("B14", "CreateThread", {"metadata": text}) for text in ("1", '"x"', "null", "true", "[]")],
    *[Row("B14", "SearchThreads", {"metadata": text}) for text in ("1", "[]")],
    Row("B14", "AddThreadState", {"thread_id": "x", "tasks": "{}"}),
    *_json("B15", f'\ufeff{{"{CANARY}": 1}}', "{\0}", "{'a': 1}", '{"a": 1,}', '{"a": "\n"}', f"{CANARY}"),
    Row("B16", "GetThread", {"thread_id": ""}),
    Row("B16", "GetThread", {}),
    Row("B16", "PruneThreads", {"thread_ids": [""], "strategy": 1}),
    Row("B16", "UpdateAssistant", {"assistant_id": "x", "graph_id": ""}),
    Row("B17", "GetThread", {"thread_id": LONG}),
    Row("B17", "CreateThread", {"owner_id": LONG}),
    Row("B17", "GetThread", {"thread_id": "é" * 128}),
    _item("B17", key="k" * 1025),
    _item("B17", key="k" * 1024, namespace=["n" * 255] * 4),
    *[Row("B18", "CreateThread", {"thread_id": f"a{character}b"}) for character in "\n\r\t\x1b\x7f\x85"],
    _item("B22", namespace=[]),
    Row("B22", "DeleteNamespace", {"namespace": []}),
    Row("B22", "DeleteNamespace", {"namespace": [""]}),
    _item("B23", namespace=["a.b"]),
    Row("B23", "SearchItems", {"namespace_prefix": [f"{CANARY}."]}),
    _item("B24", namespace=["a"] * 1000),
    _item("B24", namespace=["a"] * 33),
    _item("B24", namespace=[CANARY * 80_000]),
    *[
        Row("B27", method, {"page_size": -1})
        for method in ("SearchThreads", "SearchRuns", "SearchCrons", "SearchAssistants")
    ],
    Row("B27", "SearchItems", {"limit": -1}),
    Row("B29", "SearchThreads", {"offset": -1}),
    Row("B29", "SearchThreads", {"offset": 10_001}),
    Row("B29", "SearchItems", {"offset": 2**31 - 1}),
    # A number of more than 32 bits is cut by the format of the message itself: its lower half is 0, the default.
    Row("B30", "SearchThreads", raw=lambda: _text_field(1, b"owner") + b"\x40" + b"\x80" * 9 + b"\x01", **OK),
    *[
        Row("B31", "SearchThreads", {"page_token": t}, reason="INVALID_PAGE_TOKEN")
        for t in ("AAAA", CANARY, "é", "A" * 4096)
    ],
    Row("B31", "SearchThreads", {"page_token": "A" * 5000}),
    Row("B33", "CreateThread", {"status": 99}),
    Row("B33", "CreateThread", {"visibility": -1}),
    Row("B33", "SearchThreads", {"sort_by": 99}),
    Row("B34", "UpdateThread", {"thread_id": "x", "status": 0}),
    Row("B34", "SearchThreads", {"statuses": [0]}),
    Row("B34", "Truncate", {"resources": [0]}),
    Row("B35", "Batch", {"operations": [{}]}),
    Row("B35", "Batch", raw=lambda: _both_of_a_oneof(), code="OK", reason=""),
    *[
        Row("B36", "CreateCron", raw=lambda seconds=seconds, nanos=nanos: _cron_until(seconds, nanos))  # type: ignore[misc]
        for seconds, nanos in ((4e9, 10**9), (4e9, -1), (-62135596801, 0), (253402300800, 0), (2**62, 0), (0, 0))
    ],
    *[_item("B37", ttl_minutes=minutes) for minutes in (0, -1, 1e12, "NaN", "Infinity", "-Infinity", 1e-300)],
    *[
        Row("B38", "CreateCron", {**_CRON, "schedule": text})
        for text in (
            f"{CANARY} * * * *",
            "* * * * * *",
            "61 * * * *",
            "",
            "* " * 5000,
            "0 0 31 2 *",
            "@reboot",
            "\0",
            "é * * * *",
        )
    ],
    *[
        Row("B39", "CreateCron", {**_CRON, "schedule": "@daily", "timezone": zone})
        for zone in (f"Mars/{CANARY}", "../../etc/passwd", "/etc/localtime", "posixrules/", "Europe", "\0", "Z" * 300)
    ],
    Row("B41", "SearchItems", {"filters": [{"key": "a", "operator": 99, "operand": "1"}]}),
    Row("B41", "SearchItems", {"filters": [{"key": "a"}]}),
    Row("B43", "SearchItems", {"filters": [{"key": "a", "operand": "1"}] * 10_000}),
    Row("B43", "SearchThreads", {"metadata": json.dumps({f"k{n}": n for n in range(10_000)})}),
    Row("B43", "SearchThreads", {"values": json.dumps({f"k{n}": n for n in range(101)})}),
    Row("B43", "SearchThreads", {"thread_ids": ["x"] * 65_536}),
    Row("B43", "PruneThreads", {"thread_ids": ["x"] * 1_001, "strategy": 1}),
    Row("B44", "GetThread", {"thread_id": "x", "fields": "id; drop table"}),
    Row("B44", "SearchThreads", {"fields": f"metadata,{CANARY.replace('-', '_')}"}),
    *[Row("B54", "SearchThreads", {"owner_id": owner}) for owner in ("", "*", "%")],
    Row("B54", "GetOwnerUsage", {"owner_id": None}, reason="OWNER_REQUIRED"),
    Row("B62", "Batch", {"operations": [{"get": _PLACE}] * 1_001}),
    Row("B62", "Batch", {"operations": []}),
    Row("B63", "Batch", {"operations": [{"put": {**_PLACE, "value": "1"}}, {"put": {**_PLACE, "value": CANARY}}]}),
    Row("B65", "GetThread", raw=lambda: _text_field(1, b"owner") + b"\x10\x05"),
    # What is odd and yet right.
    *_json("B9", '{"n": 9007199254740993}', **OK),
    *_json("B10", '{"n": 1e400}', "1e-400", **OK),
    *_json("B12", '{"a": 1, "a": 2}', **OK),
    *[
        Row("B18", "CreateThread", {"thread_id": id}, **OK)
        for id in ("a/../b", "%", "_", "\\", "a:b.*", "\u202eb", "a\u200bb", "ÉÉ", "'; DROP TABLE threads; --")
    ],
    Row("B21", "CreateThread", {"thread_id": "urn:uuid:6BA7B810-9DAD-11D1-80B4-00C04FD430C8"}, **OK),
    *[Row("B25", "SearchItems", {"key_prefix": prefix}, **OK) for prefix in ("%", "_", "a\\", "'")],
    Row("B26", "SearchThreads", {"page_size": 0}, **OK),
    Row("B28", "SearchThreads", {"page_size": 2**31 - 1}, **OK),
    *[
        Row("B40", "SearchItems", {"filters": [{"key": key, "operand": "1"}]}, **OK)
        for key in ("') OR '1'='1", '"', "a->b", "$.a", "{a,b}", "")
    ],
    Row("B45", "SearchItems", {"filters": [{"key": "a", "operator": "FILTER_OPERATOR_GT", "operand": '"1"'}]}, **OK),
    Row("B61", "DeleteThread", {"thread_id": "nowhere"}, code="NOT_FOUND", reason="NOT_FOUND"),
    Row("B61", "DeleteThread", {"thread_id": "nowhere", "allow_missing": True}, **OK),
    Row("B61", "GetItem", {"namespace": ["a"], "key": "k" * 1024}, code="NOT_FOUND", reason="NOT_FOUND"),
    Row("B64", "CreateThread", raw=lambda: _thread() + b"\xfa\x3f\x05" + CANARY[:5].encode(), **OK),
    *QUEUE_ROWS,
]


def _both_of_a_oneof() -> bytes:
    """One operation whose get is followed by a delete: the last one counts."""
    get = store_pb2.Operation(get=store_pb2.GetOperation(**_PLACE)).SerializeToString()
    delete = store_pb2.Operation(delete=store_pb2.DeleteOperation(**_PLACE)).SerializeToString()
    return _text_field(1, b"owner") + _text_field(2, get + delete)


def _cron_until(seconds: float, nanos: int) -> bytes:
    """A cron whose end_time has these numbers."""

    def varint(number: int) -> bytes:
        number &= 2**64 - 1
        found = b""
        while number > 127:
            found += bytes([number & 127 | 128])
            number >>= 7
        return found + bytes([number])

    time = b"\x08" + varint(int(seconds)) + b"\x10" + varint(nanos)
    fields = _text_field(1, b"owner") + _text_field(3, b"a") + _text_field(5, b"@daily") + _text_field(8, time)
    return fields + b"\x70\x01"


def frame(message: bytes, *, compressed: bool = False) -> bytes:
    """A message as gRPC frames it."""
    return struct.pack(">?I", compressed, len(message)) + message
