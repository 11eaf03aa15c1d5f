"""The rules of the protos, as they are compiled from the descriptors."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import (
    assistants_pb2,
    crons_pb2,
    options_pb2,
    runs_pb2,
    server_pb2,
    store_pb2,
    threads_pb2,
)
from storage_service.errors import InvalidRequest
from storage_service.settings import Limits
from storage_service.validate import Validator, check_id
from tests.service import METHODS

REQUESTS = {method.input_type.full_name: method.input_type for method in METHODS.values()}


def violations(message: Message, limits: Limits | None = None) -> dict[str, str]:
    try:
        Validator(REQUESTS[message.DESCRIPTOR.full_name], limits or Limits()).check(message)
    except InvalidRequest as error:
        return error.violations
    return {}


def texts(descriptor: Descriptor) -> list[tuple[FieldDescriptor, options_pb2.FieldRule]]:
    found = []
    for field in descriptor.fields:
        rule: options_pb2.FieldRule = field.GetOptions().Extensions[options_pb2.rule]  # type: ignore[index]  # the stubs know no extension
        if field.type == FieldDescriptor.TYPE_STRING:
            found.append((field, rule))
    return found


def put(message: Message, field: FieldDescriptor, value: str) -> None:
    if field.is_repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


FIELDS = [(name, field.name) for name, descriptor in REQUESTS.items() for field, _ in texts(descriptor)]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_text_of_every_request_is_bounded(name: str, field: str) -> None:
    """No text has more than its bytes, or a NUL."""
    descriptor = REQUESTS[name]
    [(of, rule)] = [(of, rule) for of, rule in texts(descriptor) if of.name == field]
    json = rule.format in (
        options_pb2.FORMAT_JSON,
        options_pb2.FORMAT_JSON_OBJECT,
        options_pb2.FORMAT_JSON_ARRAY,
    )
    longest = 255 if rule.format not in (0, 2, 3, 6) else rule.max_bytes or 1024
    limits = dataclasses.replace(Limits(), json_bytes=1000)
    bad = ['"\\u0000"', '"' + "x" * 999 + '"', "{"] if json else ["a\0", "x" * (longest + 1), "é" * (longest // 2 + 1)]
    path = f"{field}[0]" if of.is_repeated else field
    for value in bad:
        message = GetMessageClass(descriptor)()
        put(message, of, value)
        assert path in violations(message, limits), value[:20]
    if not json:
        message = GetMessageClass(descriptor)()
        put(message, of, "x" * longest)
        assert path not in violations(message)


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_every_list_is_bounded(name: str) -> None:
    descriptor = REQUESTS[name]
    for field in descriptor.fields:
        if field.is_repeated and field.message_type is None:
            message = GetMessageClass(descriptor)()
            if field.type == field.TYPE_FLOAT:  # a vector
                getattr(message, field.name).extend([1.0] * 16001)
            else:
                getattr(message, field.name).extend(["x"] * 1001 if field.enum_type is None else [1] * 1001)
            assert field.name in violations(message), field.name


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_unknown_enum_numbers(name: str) -> None:
    descriptor = REQUESTS[name]
    for field in descriptor.fields:
        if field.enum_type is None:
            continue
        for number in (99, -1):
            message = GetMessageClass(descriptor)()
            if field.is_repeated:
                getattr(message, field.name).append(number)
            else:
                setattr(message, field.name, number)
            assert (f"{field.name}[0]" if field.is_repeated else field.name) in violations(message)


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (threads_pb2.GetThreadRequest(), {"thread_id"}),
        (threads_pb2.UpdateThreadRequest(thread_id="x"), set()),
        (threads_pb2.UpdateThreadRequest(thread_id="x", status="THREAD_STATUS_UNSPECIFIED"), {"status"}),
        (threads_pb2.SearchThreadsRequest(page_size=-1, offset=10001), {"page_size", "offset"}),
        (threads_pb2.SearchThreadsRequest(thread_ids=["a", ""]), {"thread_ids[1]"}),
        (assistants_pb2.CreateAssistantRequest(), {"graph_id"}),
        (assistants_pb2.SetLatestAssistantVersionRequest(assistant_id="x"), {"version"}),
        (assistants_pb2.UpdateAssistantRequest(assistant_id="x", expected_version=0), set()),
        (assistants_pb2.UpdateAssistantRequest(assistant_id="x", graph_id=""), {"graph_id"}),
        (runs_pb2.CreateRunRequest(), {"thread_id", "assistant_id"}),
        (server_pb2.TruncateRequest(), {"resources"}),
        (store_pb2.BatchRequest(), {"operations"}),
        (store_pb2.PutItemRequest(key="k", value="1", namespace=["a", "", "b.c"]), {"namespace[1]", "namespace[2]"}),
        (store_pb2.PutItemRequest(key="k", value="1", namespace=["a"], ttl_minutes=float("nan")), {"ttl_minutes"}),
        (store_pb2.PutItemRequest(key="k", value="1", namespace=["a"], ttl_minutes=float("inf")), {"ttl_minutes"}),
        (crons_pb2.CreateCronRequest(assistant_id="a", schedule="x" * 256), {"schedule"}),
    ],
)
def test_examples(message: Message, fields: set[str]) -> None:
    assert violations(message).keys() == fields


def test_paths_lead_into_nested_messages() -> None:
    request = store_pb2.BatchRequest()
    request.operations.add().put.CopyFrom(store_pb2.PutOperation(namespace=["a"], key="k", value="{"))
    request.operations.add().list_namespaces.matches.add().path.extend(["a", "b."])
    request.operations.add().search.filters.add(key="k")
    assert violations(request).keys() == {
        "operations[0].put.value",
        "operations[1].list_namespaces.matches[0].path[1]",
        "operations[2].search.filters[0].operand",
    }


@pytest.mark.parametrize(
    ("seconds", "nanos", "taken"),
    [
        (-62135596800, 0, True),
        (253402300799, 999999999, True),
        (-62135596801, 0, False),
        (253402300800, 0, False),
        (0, -1, False),
        (0, 1000000000, False),
    ],
)
def test_times(seconds: int, nanos: int, taken: bool) -> None:
    end = Timestamp(seconds=seconds, nanos=nanos)
    found = violations(crons_pb2.CreateCronRequest(assistant_id="a", schedule="@daily", end_time=end))
    assert found.keys() == (set() if taken else {"end_time"})


def test_not_more_than_five_are_told() -> None:
    assert len(violations(threads_pb2.PruneThreadsRequest(thread_ids=[""] * 20))) == 5


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("a", False), ("é" * 127, False), ("é" * 128, True), ("x" * 255, False), ("x" * 256, True), ("", True), ("a\tb", True),
     ("\x7f", True), ("\x9f", True), ("\u00a0", False), ("\u202e", False), ("%", False), ("a b", False)],
)  # fmt: skip
def test_ids(text: str, wrong: bool) -> None:
    assert bool(check_id(text)) is wrong


def test_limits_of_a_server() -> None:
    limits = dataclasses.replace(Limits(), json_bytes=10, json_depth=2, namespace_labels=2)
    request: Any = store_pb2.PutItemRequest(namespace=["a", "b"], key="k", value="[[1]]")
    assert violations(request, limits) == {}
    request = store_pb2.PutItemRequest(namespace=["a", "b", "c"], key="k", value="[[[1]]]", metadata='{"a": 12345}')
    assert violations(request, limits).keys() == {"namespace", "value", "metadata"}
