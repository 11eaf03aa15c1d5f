"""Random requests of every method, made from the descriptors and the pools of values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from agentstorage.v1 import options_pb2
from tests.model import values as pools
from tests.service import METHODS

#: A stream is of a run or of a thread.
_OTHER = ("run_id", "thread_id") * 4 + ("",)
_SELDOM = (False,) * 39 + (True,)
_SOMETIMES = (False,) * 7 + (True,) * 3

#: Draws one of some values.
Draw: TypeAlias = Callable[[Sequence[Any]], Any]
#: Makes something of what it draws.
Maker: TypeAlias = Callable[[Draw], Any]
#: A method, whose call it is, and the request.
Drawn: TypeAlias = tuple[str, str, Message]


def _texts(field: Any, form: int) -> Sequence[str]:
    name = field.name
    if name in pools.IDS or name in pools.POOL_OF:
        return pools.IDS[pools.POOL_OF.get(name, name)]
    if name == "operand":
        return pools.OPERANDS
    if name == "tasks":
        return ("[]", '[{"id": "1"}]', '[1.0, "a"]', "{}")
    if name == "parent_checkpoint":
        return ("", "null", '{"checkpoint_id": "state-1", "thread_id": "thread-1"}', '{"a": 1}', "[]")
    of = field.containing_type.name
    if name == "checkpoint":
        return (*pools.CHECKPOINTS_JSON * 3, *pools.BAD_JSON, "[]")
    if name == "metadata" and of in ("PutCheckpointRequest", "CommitSuperstepRequest", "ListCheckpointsRequest"):
        return (*pools.CHECKPOINT_METADATA * 3, *pools.OBJECTS, *pools.BAD_JSON)
    if name == "payload":
        return (*pools.OBJECTS, *pools.PAYLOADS * 3, *pools.BAD_JSON)
    if form == options_pb2.FORMAT_JSON_OBJECT:
        return (*pools.OBJECTS, *pools.OBJECTS, *pools.OBJECTS, *pools.BAD_JSON, "[]")
    if form == options_pb2.FORMAT_JSON:
        return (*pools.VALUES, *pools.VALUES, *pools.VALUES, *pools.BAD_JSON)
    return pools.TEXTS[name]


def _value(field: Any) -> Maker:
    """What draws one value of a field."""
    rule = field.GetOptions().Extensions[options_pb2.rule]
    if field.type == FieldDescriptor.TYPE_STRING:
        texts = _texts(field, rule.format)
        return lambda draw: draw(texts)
    of = field.containing_type.name
    chosen: Sequence[Any]
    if (of, field.name) in pools.NUMBERS_OF:
        chosen = pools.NUMBERS_OF[of, field.name]
    elif field.enum_type is not None:
        chosen = (*tuple(range(len(field.enum_type.values))) * 4, 99)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        chosen = (False, True)
    else:
        chosen = pools.NUMBERS[field.name]
    return lambda draw: draw(chosen)


def _message(descriptor: Any) -> Maker:
    """What draws a message: required fields nearly always, others sometimes."""
    fields = [(field, *_field(field)) for field in descriptor.fields if field.name not in ("owner_id", "page_token")]
    make = GetMessageClass(descriptor)
    oneof = tuple(descriptor.oneofs[0].fields) if descriptor.name == "Operation" else ()

    def draw_message(draw: Draw) -> Message:
        message = make()
        if oneof:
            chosen = draw(oneof)
            getattr(message, chosen.name).CopyFrom(_drawer(chosen.message_type)(draw))
            return message
        for field, often, fill in fields:
            if always(field) or (draw(_SELDOM) != often if often else draw(_SOMETIMES)):
                fill(draw, message)
        if descriptor.name == "StreamRunEventsRequest" and (other := draw(_OTHER)):
            message.ClearField(other)
        return message

    return draw_message


def always(field: Any) -> bool:
    """Whether the field is an id that the server would make by itself: the two would make different ones."""
    makes = field.containing_type.name.startswith(("Create", "Copy", "AddThreadState"))
    return (
        makes
        and field.name in (*pools.IDS, "new_thread_id")
        and not (field.name == "thread_id" and "Cron" in field.containing_type.name)
    )


_drawers: dict[str, Maker] = {}


def _drawer(descriptor: Any) -> Maker:
    if descriptor.full_name not in _drawers:
        _drawers[descriptor.full_name] = _message(descriptor)
    return _drawers[descriptor.full_name]


#: Given nearly always: without them most calls would be refused, or leave nothing to meet again.
_OFTEN = frozenset(
    {
        *(
            "assistant_id",
            "thread_id",
            "run_id",
            "cron_id",
            "checkpoint_id",
            "new_thread_id",
            "metadata",
            "record_only",
        ),
        *("lease_token", "first_sequence", "lease_seconds", "multitask_strategy"),
    }
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
        return often, lambda draw, message: getattr(message, name).extend(draw(pools.NAMESPACES))
    if name == "path":
        return True, lambda draw, message: message.path.extend(_several(draw, pools.LABELS, 3))
    if name == "fields":
        rows: Any = METHODS[request.removesuffix("Request")].output_type.fields[0].message_type
        columns = [f.name for f in rows.fields]
        masks = (*columns, *columns, *columns, "secret")
        return False, lambda draw, message: message.fields.paths.extend(_several(draw, masks, 3))
    if name in ("end_time", "run_after"):
        return False, lambda draw, message: getattr(message, name).FromJsonString(draw(pools.TIMES))
    if field.message_type is not None:
        inner = field.message_type
        if not field.is_repeated:
            return often, lambda draw, message: getattr(message, name).CopyFrom(_drawer(inner)(draw))
        sizes = range(1, 5 if name == "operations" else 3)

        def fill(draw: Draw, message: Any) -> None:
            for _ in range(draw(sizes)):
                getattr(message, name).append(_drawer(inner)(draw))

        return often, fill
    value = _value(field)
    if field.is_repeated:
        counts = range(1, 4)
        return often, lambda draw, message: getattr(message, name).extend([value(draw) for _ in range(draw(counts))])
    return often, lambda draw, message: setattr(message, name, value(draw))


def _several(draw: Draw, values: Sequence[str], most: int) -> list[str]:
    return [draw(values) for _ in range(draw(range(1, most + 1)))]


def _requests(methods: tuple[str, ...]) -> st.SearchStrategy[Drawn]:
    """Requests of which every value is drawn and shrunk by itself."""

    @st.composite
    def drawn(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Drawn:
        def one_of(values: Sequence[Any]) -> Any:
            return draw(st.sampled_from(values))

        method = one_of(methods)
        return method, one_of(pools.OWNERS), _drawer(METHODS[method].input_type)(one_of)

    return drawn()


_NOT_OF_ROWS = ("Truncate", "GetServerInfo", "ExportOwner", "EraseOwner")
#: The methods of the queue, those more often without which the others do nothing.
_QUEUE = (
    *("CreateRun", "ClaimRuns") * 5,
    *("CancelRuns", "SweepRuns", "StreamRunEvents", "FireDueCrons") * 2,
    *("WaitRun", "GetRunStats", "GetActiveRun", "GetThread", "UpdateRun", "DeleteRun", "PutCheckpoint"),
)
_OF_A_LEASE = (*("FinishRun", "AppendRunEvents") * 2, "HeartbeatRun", "ReleaseRun")


def _family(service: str, *more: str) -> st.SearchStrategy[Drawn]:
    """Methods of a service; those that make rows more often than the others."""
    own = [
        name
        for name, method in METHODS.items()
        if method.containing_service.name == service and name not in _NOT_OF_ROWS
    ]
    makers = [name for name in own if name.startswith(("Create", "Put", "Add", "Update"))]
    return _requests((*own, *makers, *more))


ASSISTANTS, THREADS, RUNS = _family("AssistantService"), _family("ThreadService"), _family("RunService")
CRONS, ITEMS = _family("CronService", "FireDueCrons"), _family("StoreService", "GetOwnerUsage")
CHECKPOINTS = _family("CheckpointService", "PutCheckpoint", "PutCheckpoint")
METHODS_DRIVEN = frozenset(METHODS) - {"Truncate", "GetServerInfo"}
_WORKERS = ("@A",) * 12 + ("@B", "@B", "@system", "", "")


def of_the_queue(seed: int, *, has_claims: bool) -> Drawn:
    """A request that is drawn as a whole, every one as likely as it is meant to be, since one call needs what another did."""
    random = Random(seed)
    method = random.choice(_OF_A_LEASE if has_claims and random.random() < 0.6 else _QUEUE)
    return method, random.choice(_WORKERS), _drawer(METHODS[method].input_type)(random.choice)
