"""Random requests of every method, made from the descriptors: small pools of ids, so that collisions and foreign ids are common, and
the texts and numbers that backends disagree about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from agentstorage.v1 import options_pb2
from tests.service import METHODS

# "@A", "@B" and "@system" stand for the owners of an example.
OWNERS = ("@A", "@A", "@A", "@A", "@A", "@B", "@B", "@system", "")
IDS = {
    "assistant_id": ("assistant-1", "assistant-%"),
    "thread_id": ("thread-1", "Thread-1", "thread-2"),
    "run_id": ("run-é", "run-e\u0301", "run-1"),
    "cron_id": ("cron-1", "cron-_"),
    "checkpoint_id": ("state-1", "state-2", "state-3"),
}
_POOL_OF = {
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
    "type": ("msgpack", "empty", ""),
}
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
}
_TIMES = ("2099-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2027-06-01T00:00:00.123456Z", "2001-01-01T00:00:00Z")
_SELDOM = st.integers(0, 39).map(lambda number: number == 39)
_SOMETIMES = st.integers(0, 9).map(lambda number: number > 6)

Draw = Callable[[Any], Any]


def _text(field: Any, form: int) -> st.SearchStrategy[str]:
    name = field.name
    if name in IDS or name in _POOL_OF:
        return st.sampled_from(IDS[_POOL_OF.get(name, name)])
    if name == "operand":
        return st.sampled_from(OPERANDS)
    if name == "tasks":
        return st.sampled_from(("[]", '[{"id": "1"}]', '[1.0, "a"]', "{}"))
    if name == "parent_checkpoint":
        return st.sampled_from(("", "null", '{"checkpoint_id": "state-1", "thread_id": "thread-1"}', '{"a": 1}', "[]"))
    of = field.containing_type.name
    if name == "checkpoint":
        return st.sampled_from((*CHECKPOINTS_JSON * 3, *BAD_JSON, "[]"))
    if name == "metadata" and of in ("PutCheckpointRequest", "CommitSuperstepRequest", "ListCheckpointsRequest"):
        return st.sampled_from((*CHECKPOINT_METADATA * 3, *OBJECTS, *BAD_JSON))
    if form == options_pb2.FORMAT_JSON_OBJECT:
        return st.sampled_from((*OBJECTS, *OBJECTS, *OBJECTS, *BAD_JSON, "[]"))
    if form == options_pb2.FORMAT_JSON:
        return st.sampled_from((*VALUES, *VALUES, *VALUES, *BAD_JSON))
    return st.sampled_from(TEXTS[name])


def _value(field: Any) -> Draw:
    """What draws one value of a field."""
    rule = field.GetOptions().Extensions[options_pb2.rule]
    if field.type == FieldDescriptor.TYPE_STRING:
        texts = _text(field, rule.format)
        return lambda draw: draw(texts)
    if field.enum_type is not None:
        numbers = st.sampled_from((*tuple(range(len(field.enum_type.values))) * 4, 99))
        return lambda draw: draw(numbers)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return lambda draw: draw(st.booleans())
    chosen = st.sampled_from(NUMBERS[field.name])
    return lambda draw: draw(chosen)


def _message(descriptor: Any) -> Draw:
    """What draws a message: required fields nearly always, others sometimes."""
    fields = [(field, *_field(field)) for field in descriptor.fields if field.name not in ("owner_id", "page_token")]
    make = GetMessageClass(descriptor)
    oneof = descriptor.oneofs[0].fields if descriptor.name == "Operation" else ()
    kinds = st.integers(0, len(oneof) - 1) if oneof else None

    def draw_message(draw: Draw) -> Message:
        message = make()
        if kinds is not None:
            chosen = oneof[draw(kinds)]
            getattr(message, chosen.name).CopyFrom(_drawer(chosen.message_type)(draw))
            return message
        for field, often, fill in fields:
            if always(field) or (draw(_SELDOM) != often if often else draw(_SOMETIMES)):
                fill(draw, message)
        return message

    return draw_message


def always(field: Any) -> bool:
    """Whether the field is an id that the server would make by itself: the two would make different ones."""
    makes = field.containing_type.name.startswith(("Create", "Copy", "AddThreadState"))
    return (
        makes
        and field.name in (*IDS, "new_thread_id")
        and not (field.name == "thread_id" and "Cron" in field.containing_type.name)
    )


_drawers: dict[str, Draw] = {}


def _drawer(descriptor: Any) -> Draw:
    if descriptor.full_name not in _drawers:
        _drawers[descriptor.full_name] = _message(descriptor)
    return _drawers[descriptor.full_name]


#: Given nearly always: without them most calls would be refused, or leave nothing to meet again.
_OFTEN = frozenset(
    {"assistant_id", "thread_id", "run_id", "cron_id", "checkpoint_id", "new_thread_id", "metadata", "record_only"}
)


#: Methods of which what is given is for them to find.
_SEARCHES = ("Search", "Count", "GetRun", "DeleteRun", "GetCheckpoint", "GetDelta", "ListCheckpoints")


def _field(field: Any) -> tuple[bool, Callable[[Draw, Any], None]]:
    """Whether a field is given nearly always, and what fills it."""
    name = field.name
    rule = field.GetOptions().Extensions[options_pb2.rule]
    request = field.containing_type.name
    often = rule.required or (name in _OFTEN and not request.startswith(_SEARCHES))
    often = often and not (field.has_presence and name != "owner_id" and not rule.format)
    if name in ("namespace", "namespace_prefix"):
        spaces = st.sampled_from(NAMESPACES)
        return often, lambda draw, message: getattr(message, name).extend(draw(spaces))
    if name == "path":
        labels = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3)
        return True, lambda draw, message: message.path.extend(draw(labels))
    if name == "fields":
        rows: Any = METHODS[request.removesuffix("Request")].output_type.fields[0].message_type
        columns = [f.name for f in rows.fields]
        masks = st.lists(st.sampled_from((*columns, *columns, *columns, "secret")), min_size=1, max_size=3)
        return False, lambda draw, message: message.fields.paths.extend(draw(masks))
    if name == "end_time":
        times = st.sampled_from(_TIMES)
        return False, lambda draw, message: message.end_time.FromJsonString(draw(times))
    if field.message_type is not None:
        inner = field.message_type
        if not field.is_repeated:
            return often, lambda draw, message: getattr(message, name).CopyFrom(_drawer(inner)(draw))
        sizes = st.integers(1, 4 if name == "operations" else 2)

        def fill(draw: Draw, message: Any) -> None:
            for _ in range(draw(sizes)):
                getattr(message, name).append(_drawer(inner)(draw))

        return often, fill
    value = _value(field)
    if field.is_repeated:
        counts = st.integers(1, 3)
        return often, lambda draw, message: getattr(message, name).extend([value(draw) for _ in range(draw(counts))])
    return often, lambda draw, message: setattr(message, name, value(draw))


def _requests(methods: tuple[str, ...]) -> st.SearchStrategy[tuple[str, str, Message]]:
    names, owners = st.sampled_from(methods), st.sampled_from(OWNERS)

    @st.composite
    def drawn(draw: Draw) -> tuple[str, str, Message]:
        method = draw(names)
        return method, draw(owners), _drawer(METHODS[method].input_type)(draw)

    return drawn()


_NOT_OF_ROWS = ("Truncate", "GetServerInfo", "ExportOwner", "EraseOwner")


def _family(service: str, *more: str) -> st.SearchStrategy[tuple[str, str, Message]]:
    """Methods of a service; those that make rows more often than the others."""
    own = [
        name
        for name, method in METHODS.items()
        if method.containing_service.name == service and name not in _NOT_OF_ROWS
    ]
    makers = [name for name in own if name.startswith(("Create", "Put", "Add", "Update"))]
    return _requests((*own, *makers, *more))


ASSISTANTS, THREADS, RUNS = _family("AssistantService"), _family("ThreadService"), _family("RunService")
CRONS, ITEMS = _family("CronService"), _family("StoreService", "GetOwnerUsage")
CHECKPOINTS = _family("CheckpointService", "PutCheckpoint", "PutCheckpoint")
METHODS_DRIVEN = frozenset(METHODS) - {"Truncate", "GetServerInfo"}
