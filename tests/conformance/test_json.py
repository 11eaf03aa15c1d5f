"""JSON fields: what is kept, how it comes back, what is refused; the same in every field of every kind."""

from __future__ import annotations

from typing import Any

import pytest

from agentstorage.v1 import options_pb2 as options
from tests.conformance.expect import invalid
from tests.conformance.rows import THREADS
from tests.service import METHODS, Api, CallFailed

# What is sent, and what comes back: keys by length and then bytes, the last of equal keys, numbers with every digit.
KEPT = [
    ("9007199254740993", "9007199254740993"),
    ("-123456789012345678901234567890", "-123456789012345678901234567890"),
    ("1.0", "1.0"),
    ("1.10", "1.10"),
    ("-0", "0"),
    ("-0.0", "0.0"),
    ("1e3", "1000"),
    ("1E-7", "0.0000001"),
    ("1.50e1", "15.0"),
    ("1e20", "1" + "0" * 20),
    ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
    ('{"bb": 1, "a": 2, "B": 3}', '{"B": 3, "a": 2, "bb": 1}'),
    ('{"a": 1, "a": {"b": 1, "b": 2}}', '{"a": {"b": 2}}'),
    ('{"é": 1, "z": 2, "zz": 3}', '{"z": 2, "zz": 3, "é": 1}'),
    ('{"":0}', '{"": 0}'),
    ("[ ]", "[]"),
    (" { } ", "{}"),
    ('[1,[2,{"a":null}],true,false]', '[1, [2, {"a": null}], true, false]'),
    ('"\\u00e9\\ud83d\\ude00\\/"', '"é\U0001f600/"'),
    ('"\\b\\f\\n\\r\\t\\"\\\\"', '"\\b\\f\\n\\r\\t\\"\\\\"'),
    ('"\\u001f\\u007f"', '"\\u001f\x7f"'),
    ('"e\u0301 \u2028 \uffff"', '"e\u0301 \u2028 \uffff"'),
    ("\t\r\n1 ", "1"),
    ("[" * 100 + "]" * 100, "[" * 100 + "]" * 100),
    ('"' + "[" * 200 + '"', '"' + "[" * 200 + '"'),
]
REFUSED = [
    "{", "}", "[1,]", "{'a': 1}", '{"a" 1}', "01", "+1", ".5", "1.", "0x1", "tru", "undefined", "1 2", "// x\n1", '"a', '"\n"', '"\\x"',
    "NaN", "Infinity", "-Infinity", "[NaN]", '"\\u0000"', '{"\\u0000": 1}', '"\\ud800"', '"\\ude00\\ud83d"', "\ufeff1", "\u00a01",
    "[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101, "1e400000", "1e-400000", "1e999999999999", "\x00", " ",
]  # fmt: skip


async def test_what_comes_back(api: Api, owner: str) -> None:
    for sent, kept in KEPT:
        row = await THREADS.create(api, owner, values=sent)
        assert row.values == kept, sent[:80]
        assert (await THREADS.get(api, owner, row.thread_id)).values == kept
        # What came back is sent again without a change.
        again = await THREADS.call(api, "Update", owner, thread_id=row.thread_id, values=kept, interrupts=sent)
        assert (again.values, again.interrupts) == (kept, kept)


async def test_what_is_refused(api: Api, owner: str) -> None:
    for text in REFUSED:
        with invalid("values"):
            await THREADS.create(api, owner, values=text)
        with invalid("value"):
            await api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value=text)
    assert await THREADS.count(api, owner) == 0


def json_fields() -> list[tuple[str, str]]:
    """Every JSON field of every request, by method."""
    found = []
    for name, method in sorted(METHODS.items()):
        for field in method.input_type.fields:
            rule: options.FieldRule = field.GetOptions().Extensions[options.rule]  # type: ignore[index]  # the stubs know no extension
            if rule.format in (options.FORMAT_JSON, options.FORMAT_JSON_OBJECT, options.FORMAT_JSON_ARRAY):
                found.append((name, field.name))
    return found


@pytest.mark.parametrize(("method", "field"), json_fields())
async def test_every_json_field_is_checked(api: Api, owner: str, method: str, field: str) -> None:
    for bad in ("{4711", '"4711\\u0000"', '{"4711": NaN}'):
        fields: dict[str, Any] = {"owner_id": owner, field: bad}
        with pytest.raises(CallFailed) as caught:
            await (api.stream if METHODS[method].server_streaming else api.call)(method, **fields)
        assert (caught.value.code.name, caught.value.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert field in caught.value.message
        # Nothing of the request comes back.
        assert "4711" not in str(caught.value) + str(caught.value.fields)


async def test_numbers_at_the_limit_of_numeric(api: Api, owner: str) -> None:
    for sent, length in (("1e131071", 131072), ("1e-16383", 16385)):
        row = await THREADS.create(api, owner, values=sent)
        assert len(row.values) == length
    for text in ("1e131072", "1e-16384"):
        with invalid("values"):
            await THREADS.create(api, owner, values=text)


async def test_empty_text_is_absent(api: Api, owner: str) -> None:
    row = await THREADS.create(api, owner, values="", metadata="", interrupts="")
    assert (row.values, row.interrupts) == ("{}", "{}")
