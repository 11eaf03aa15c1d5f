"""Checks a request by the rules that its proto states (``agentstorage/v1/options.proto``).

The rules are compiled once per message type into a flat list of checks. Every violation of a request is found, not only the first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from agentstorage.v1 import options_pb2 as options
from storage_service import jsontext
from storage_service.errors import InvalidRequest
from storage_service.settings import Limits

ID_BYTES: Final = 255
LIST_ITEMS: Final = 1000
_TEXT_BYTES: Final = 1024
# Year 1 to year 9999, the range of Timestamp.
FIRST_SECOND, LAST_SECOND = -62135596800, 253402300799

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Takes a value and answers what is wrong with it, or "".
Check = Callable[[Any], str]


def check_id(text: str) -> str:
    """What is wrong with a text as an id; "" when nothing is."""
    if not text:
        return "must not be empty"
    if len(text) * 4 > ID_BYTES and len(text.encode()) > ID_BYTES:
        return f"is longer than {ID_BYTES} bytes"
    # What is printable holds none, and is known sooner.
    if not text.isprintable() and _CONTROL.search(text):
        return "holds a control character"
    return ""


def _fits(_: Any) -> str:
    return ""


def _check_label(text: str) -> str:
    return "holds a dot" if "." in text else check_id(text)


def _check_label_pattern(text: str) -> str:
    return "" if text == "*" else _check_label(text)


def _plain(max_bytes: int) -> Check:
    def check(text: str) -> str:
        if len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
            return f"is longer than {max_bytes} bytes"
        return "holds the character U+0000" if "\x00" in text else ""

    return check


def _json(limits: Limits, kind: type | None) -> Check:
    def check(text: str) -> str:
        try:
            jsontext.check(text, max_bytes=limits.json_bytes, max_depth=limits.json_depth, kind=kind)
        except jsontext.InvalidJson as error:
            return str(error)
        return ""

    return check


def _bounds(rule: options.FieldRule) -> tuple[float, float]:
    return (
        rule.at_least if rule.HasField("at_least") else -math.inf,
        rule.at_most if rule.HasField("at_most") else math.inf,
    )


def _number(rule: options.FieldRule) -> Check:
    low, high = _bounds(rule)

    def check(value: float) -> str:
        if low <= value <= high and not math.isinf(value):
            return ""
        return f"must be {low:g} or more" if high == math.inf else f"must be from {low:g} to {high:g}"

    return check


def _numbers(rule: options.FieldRule) -> Check:
    low, high = _bounds(rule)

    def check(values: Sequence[float]) -> str:
        # A NaN shows in the sum, wherever it is; min and max may pass over it.
        if not values or (math.isfinite(sum(values)) and low <= min(values) and max(values) <= high):
            return ""
        return f"holds a number that is not from {low:g} to {high:g}"

    return check


def _blob(limits: Limits) -> Check:
    return lambda value: f"is longer than {limits.blob_bytes} bytes" if len(value) > limits.blob_bytes else ""


def _check_timestamp(value: Any) -> str:
    if FIRST_SECOND <= value.seconds <= LAST_SECOND and 0 <= value.nanos < 1_000_000_000:
        return ""
    return "must be a time from year 1 to year 9999"


class Validator:
    """Checks messages of one type."""

    def __init__(self, descriptor: Descriptor, limits: Limits) -> None:
        self._fields = {field.number: _Field(field, limits) for field in descriptor.fields}
        self._required = [field for field in self._fields.values() if field.required]

    def check(self, message: Message) -> None:
        """Raises InvalidRequest, naming every field that breaks its rule."""
        violations: dict[str, str] = {}
        self.collect(message, "", violations)
        if violations:
            raise InvalidRequest(violations=dict(list(violations.items())[:5]))

    def collect(self, message: Message, path: str, violations: dict[str, str]) -> None:
        """Add what is wrong with the message's fields under their paths."""
        # What is set, which is little of what could be.
        for descriptor, value in message.ListFields():
            field = self._fields[descriptor.number]
            if field.check_set is not None:
                if wrong := field.check_set(value):
                    violations[path + field.name] = wrong
            elif field.repeated:
                field.all(value, path + field.name, violations)
            else:
                field.one(value, path + field.name, violations)
        for field in self._required:
            value = getattr(message, field.name)
            if field.repeated:
                if not value:
                    violations[path + field.name] = "must not be empty"
            elif field.presence:
                if field.is_message and not message.HasField(field.name):
                    violations[path + field.name] = "is required"
            elif not value:
                field.one(value, path + field.name, violations)


class _Field:
    """One field with its check."""

    def __init__(self, field: FieldDescriptor, limits: Limits) -> None:
        rule: options.FieldRule = field.GetOptions().Extensions[options.rule]  # type: ignore[index]  # the stubs know no extension
        self.name = field.name
        self.repeated = field.is_repeated
        self.presence = field.has_presence and not field.is_repeated
        # Where 0 is too small, an absent number is checked as the 0 that it reads as.
        self.required = rule.required or rule.at_least > 0
        self.max_items = rule.max_items or LIST_ITEMS
        if rule.format == options.FORMAT_LABEL:
            self.max_items = min(self.max_items, limits.namespace_labels)
        self.is_message = field.message_type is not None
        self._nested: Validator | None = None
        self._check: Check | None = None
        # The numbers of a list are many, and checked together.
        self._check_all: Check | None = None
        # Whether the empty text is a value to check (an id) or means absent (JSON).
        self._refuse_empty = rule.required or rule.format in (
            options.FORMAT_ID,
            options.FORMAT_LABEL,
            options.FORMAT_LABEL_PATTERN,
        )
        if field.type == FieldDescriptor.TYPE_STRING:
            self._check = self._text_check(rule, limits)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            self._check = _blob(limits)
        elif field.enum_type is not None:
            known = frozenset(field.enum_type.values_by_number)
            self._check = lambda number: "" if number in known else "is not a known value"
        elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Timestamp":
            self._check = _check_timestamp
        elif field.message_type is not None and field.message_type.file.package == "agentstorage.v1":
            self._nested = Validator(field.message_type, limits)
        elif rule.HasField("at_least") or rule.HasField("at_most"):
            if self.repeated:
                self._check_all = _numbers(rule)
            else:
                self._check = _number(rule)
        # The check of a value that is set, where that can't be an empty one; None where it takes more.
        self.check_set = None if self.repeated or self.presence else self._check or _fits

    @staticmethod
    def _text_check(rule: options.FieldRule, limits: Limits) -> Check:
        match rule.format:
            case options.FORMAT_ID:
                return check_id
            case options.FORMAT_LABEL:
                return _check_label
            case options.FORMAT_LABEL_PATTERN:
                return _check_label_pattern
            case options.FORMAT_JSON:
                return _json(limits, None)
            case options.FORMAT_JSON_OBJECT:
                return _json(limits, dict)
            case options.FORMAT_JSON_ARRAY:
                return _json(limits, list)
        return _plain(rule.max_bytes or _TEXT_BYTES)

    def all(self, values: Sequence[Any], path: str, violations: dict[str, str]) -> None:
        """Check the entries of a repeated field."""
        if len(values) > self.max_items:
            violations[path] = f"has more than {self.max_items} entries"
            return
        if self._check_all is not None:
            if wrong := self._check_all(values):
                violations[path] = wrong
            return
        for index, item in enumerate(values):
            self.one(item, f"{path}[{index}]", violations)

    def one(self, value: Any, path: str, violations: dict[str, str]) -> None:
        """Check one value of the field."""
        if self._nested is not None:
            self._nested.collect(value, path + ".", violations)
            return
        if not value and value is not False and not self.is_message:
            if value in ("", 0) and self._refuse_empty:
                violations[path] = "must not be empty"
                return
            if value == "":
                return
        if self._check is not None and (wrong := self._check(value)):
            violations[path] = wrong
