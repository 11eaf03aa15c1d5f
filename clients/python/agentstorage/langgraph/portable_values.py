"""Python's values as JSON values of the portable format, and back.

What JSON has not is an object with the key "$", which names what it is: {"$": "bytes", "v": "AAE="}.
"""

from __future__ import annotations

import base64
import importlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.serde.types import _DeltaSnapshot

TAG: Final = "$"
#: Integers that JavaScript's numbers hold exactly.
SAFE: Final = 2**53 - 1
#: How many containers may be in each other.
DEPTH: Final = 200
#: As many digits as Python turns into an integer by default.
DIGITS: Final = 4300
_MICROSECOND: Final = timedelta(microseconds=1)
_INTEGER: Final = re.compile(r"0|-?[1-9]\d*", re.ASCII)


class NotPortable(TypeError):
    """A value that the portable format does not carry, or bytes that are not of it.

    Args:
        why: What is wrong with it.

    Attributes:
        path: Where the value is, from the outermost: keys, attributes of messages, and indexes.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: tuple[str | int, ...] = ()

    def within(self, step: str | int) -> None:
        """Put a step before the path."""
        self.path = (step, *self.path)

    def __str__(self) -> str:
        return f"value{''.join(f'[{json.dumps(step, ensure_ascii=False)}]' for step in self.path)} {self.why}"


def tagged(tag: str, value: Any) -> dict[str, Any]:
    """Make an object that says what it is."""
    return {TAG: tag, "v": value}


def written(value: Any, depth: int = 0) -> Any:
    """Make a JSON value of a value. NotPortable for what has no form in it."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -SAFE <= value <= SAFE else tagged("int", _digits(value))
    if depth >= DEPTH:
        raise NotPortable(f"is nested more than {DEPTH} levels deep, or in itself")
    writer = _WRITERS.get(kind) or _base_writer(value)
    return writer(value, depth + 1)


def members(values: Iterable[Any], depth: int) -> list[Any]:
    """Make JSON values of values."""
    made = []
    for index, value in enumerate(values):
        try:
            made.append(written(value, depth))
        except NotPortable as error:
            error.within(index)
            raise
    return made


def fields(values: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Make JSON values of the values of an object whose keys are given by the format."""
    made = {}
    for key, value in values.items():
        try:
            made[key] = written(value, depth)
        except NotPortable as error:
            error.within(key)
            raise
    return made


def _mapping(value: Mapping[Any, Any], depth: int) -> Any:
    if all(type(key) is str for key in value):
        made = fields(value, depth)
        # An object that looks like a tagged one is told apart by its form.
        return tagged("object", [[key, entry] for key, entry in made.items()]) if TAG in made else made
    return tagged("map", [members(entry, depth) for entry in value.items()])


def _set(value: Iterable[Any], depth: int) -> Any:
    # Sorted, so that equal sets are equal bytes.
    return tagged("set", sorted(members(value, depth), key=lambda entry: json.dumps(entry)))


def _float(value: float, _: int) -> Any:
    if math.isnan(value):
        return tagged("float", "NaN")
    if math.isinf(value):
        return tagged("float", "Infinity" if value > 0 else "-Infinity")
    if value == 0 and math.copysign(1, value) < 0:
        return tagged("float", "-0")
    if value.is_integer() and not -SAFE <= value <= SAFE:
        # As plain digits it would be read as an integer.
        return tagged("float", str(int(value)))
    return float(value)


def _datetime(value: datetime, _: int) -> Any:
    is_local = value.utcoffset() is None
    if is_local and value.tzinfo is not None:
        raise NotPortable("is a datetime whose time zone gives no offset")
    return tagged("local_datetime" if is_local else "datetime", value.isoformat(timespec="microseconds"))


def _time(value: time, _: int) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise NotPortable("is a time whose time zone gives no offset without a date")
    return tagged("time", value.isoformat(timespec="microseconds"))


def _digits(value: int) -> str:
    try:
        text = str(value)
    except ValueError:
        text = ""
    if not 0 < len(text.lstrip("-")) <= DIGITS:
        raise NotPortable(f"is an integer of more than {DIGITS} digits")
    return text


def _base_writer(value: Any) -> Callable[[Any, int], Any]:
    """Give what writes a value whose class is not one of the format's: as the class that it extends, where nothing is lost."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, type):
        raise NotPortable("is a class, which is code, not a value")
    if isinstance(value, Enum):
        raise NotPortable(f"is of the enumeration {name}: keep its value")
    if isinstance(value, BaseMessage):
        return _message
    if name == "langgraph.types.Send":
        return _send
    if name == "langgraph.types.Interrupt":
        return _interrupt
    if name == "langgraph.types.Overwrite":
        return lambda overwrite, depth: tagged("overwrite", fields({"value": overwrite.value}, depth)["value"])
    if isinstance(value, str):
        return lambda text, _: str.__str__(text)
    if isinstance(value, int):
        return lambda number, depth: written(int(number), depth - 1)
    if isinstance(value, tuple):
        raise NotPortable(f"is of the class {name}, a tuple with names: keep a dict, such as value._asdict()")
    for base in (float, dict, list, set, frozenset):
        if isinstance(value, base):
            return _WRITERS[base]
    if hasattr(value, "model_dump"):
        raise NotPortable(f"is of the class {name}: keep a dict, such as value.model_dump(mode='json')")
    if hasattr(value, "__dataclass_fields__"):
        raise NotPortable(f"is of the class {name}: keep a dict, such as dataclasses.asdict(value)")
    if callable(value):
        raise NotPortable(f"is of the class {name}, which is code, not a value")
    advice = " bytes(value)" if isinstance(value, (bytearray, memoryview)) else " a dict, a list or a text"
    raise NotPortable(f"is of the class {name}, which other languages do not have: keep{advice}")


def _message(message: BaseMessage, depth: int) -> Any:
    # Imported here, since that module is made of this one.
    from agentstorage.langgraph.portable_messages import written_message

    return tagged("message", written_message(message, depth))


def _document(document: Document, depth: int) -> Any:
    made = {"page_content": document.page_content, "metadata": document.metadata, "id": document.id}
    if document.id is None:
        del made["id"]
    return tagged("document", fields(made, depth))


def _send(send: Any, depth: int) -> Any:
    made = fields({"node": send.node, "arg": send.arg}, depth)
    if (timeout := getattr(send, "timeout", None)) is not None:
        made["timeout"] = fields(
            {
                "run_timeout": timeout.run_timeout,
                "idle_timeout": timeout.idle_timeout,
                "refresh_on": timeout.refresh_on,
            },
            depth,
        )
    return tagged("send", made)


def _interrupt(interrupt: Any, depth: int) -> Any:
    made = {"value": interrupt.value, "id": interrupt.id}
    if (schema := getattr(interrupt, "response_schema", None)) is not None:
        made["response_schema"] = schema
    return tagged("interrupt", fields(made, depth))


_WRITERS: Final[dict[type, Callable[[Any, int], Any]]] = {
    float: _float,
    list: members,
    tuple: members,
    dict: _mapping,
    set: _set,
    frozenset: _set,
    bytes: lambda value, _: tagged("bytes", base64.b64encode(value).decode()),
    datetime: _datetime,
    date: lambda value, _: tagged("date", value.isoformat()),
    time: _time,
    timedelta: lambda value, _: tagged("timedelta", str(value // _MICROSECOND)),
    UUID: lambda value, _: tagged("uuid", str(value)),
    Decimal: lambda value, _: tagged("decimal", str(value)),
    Document: _document,
    _DeltaSnapshot: lambda value, depth: tagged("delta", fields({"value": value.value}, depth)["value"]),
}


# Reading. The parser gives each object when what is in it has been read.


def read_object(value: dict[str, Any]) -> Any:
    """Make the value of a JSON object that the parser has read. NotPortable for a tag that is not known, or used wrongly."""
    if TAG not in value:
        return value
    tag = value[TAG]
    reader = _READERS.get(tag) if isinstance(tag, str) else None
    if reader is None:
        raise NotPortable(
            f"holds the tag {json.dumps(tag, default=str)}, which this agentstorage does not know: update it"
        )
    try:
        return reader(value["v"])
    except NotPortable:
        raise
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotPortable(f'holds a "{tag}" that cannot be read: {type(error).__name__}: {error}') from None


def _read_text(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def read(text: Any) -> Any:
        if not isinstance(text, str):
            raise TypeError("it is no text")
        return parse(text)

    return read


def _read_int(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no integer")
    return int(text)


def _read_float(text: str) -> float:
    if text not in ("NaN", "Infinity", "-Infinity", "-0") and not _INTEGER.fullmatch(text):
        raise ValueError(f"{text[:80]!r} is no such float")
    return float(text)


def _read_datetime(text: str) -> datetime:
    made = datetime.fromisoformat(text)
    if made.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return made


def _read_local_datetime(text: str) -> datetime:
    made = datetime.fromisoformat(text)
    if made.tzinfo is not None:
        raise ValueError(f"{text!r} has an offset")
    return made


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_hashable(entry) for entry in value)
    if isinstance(value, set):
        return frozenset(value)
    return value


def _read_set(values: Any) -> set[Any]:
    if not isinstance(values, list):
        raise TypeError("it is no array")
    made = {_hashable(value) for value in values}
    if len(made) != len(values):
        raise ValueError("members that other languages tell apart are equal in Python, such as 1 and true")
    return made


def _read_map(pairs: Any) -> dict[Any, Any]:
    made = {_hashable(key): value for key, value in pairs}
    if len(made) != len(pairs):
        raise ValueError("keys that other languages tell apart are equal in Python, such as 1 and true")
    return made


def _read_message(value: dict[str, Any]) -> Any:
    from agentstorage.langgraph.portable_messages import read_message

    return read_message(value)


def _read_document(value: dict[str, Any]) -> Document:
    return Document(**value)


def of_langgraph(name: str) -> Any:
    """Give a class of LangGraph, whose checkpointers can be used without it."""
    return getattr(importlib.import_module("langgraph.types"), name)


def _read_send(value: dict[str, Any]) -> Any:
    if (timeout := value.get("timeout")) is None:
        return of_langgraph("Send")(value["node"], value["arg"])
    return of_langgraph("Send")(value["node"], value["arg"], timeout=of_langgraph("TimeoutPolicy")(**timeout))


def _read_interrupt(value: dict[str, Any]) -> Any:
    return of_langgraph("Interrupt")(**value)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "int": _read_text(_read_int),
    "float": _read_text(_read_float),
    "bytes": _read_text(lambda text: base64.b64decode(text, validate=True)),
    "datetime": _read_text(_read_datetime),
    "local_datetime": _read_text(_read_local_datetime),
    "date": _read_text(date.fromisoformat),
    "time": _read_text(time.fromisoformat),
    "timedelta": _read_text(lambda text: _read_int(text) * _MICROSECOND),
    "uuid": _read_text(UUID),
    "decimal": _read_text(Decimal),
    "set": _read_set,
    "map": _read_map,
    "object": dict,
    # Python has no such value.
    "undefined": lambda _: None,
    "message": _read_message,
    "document": _read_document,
    "send": _read_send,
    "interrupt": _read_interrupt,
    "overwrite": lambda value: of_langgraph("Overwrite")(value),
    "delta": _DeltaSnapshot,
}
