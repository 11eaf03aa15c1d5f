"""A serializer whose values Python and TypeScript both read. docs/portable.md describes the format."""

from __future__ import annotations

import json
from typing import Any, Final

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from agentstorage.langgraph.portable_values import NotPortable, read_object, written

__all__ = ["PORTABLE", "NotPortable", "PortableSerializer"]

#: The type of the values in this format. Other versions of it will have other types.
PORTABLE: Final = "portable.v1"
# The types of LangGraph's own serializer; "pickle" where it is made with pickle_fallback.
_OWN: Final = frozenset({"null", "bytes", "bytearray", "json", "msgpack", "pickle"})
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":")).encode
_TOO_DEEP: Final = "is nested too deeply to be read"


def _refuse_constant(name: str) -> Any:
    raise NotPortable(f"holds {name}, which is not JSON")


_decode = json.JSONDecoder(object_hook=read_object, parse_constant=_refuse_constant).decode


class PortableSerializer(JsonPlusSerializer):
    """Writes values that the TypeScript client's ``PortableSerializer`` reads, and reads what that one writes.

        AsyncGrpcSaver("localhost:50051", owner_id="alice", serde=PortableSerializer())

    Carried are LangChain's messages and documents, what LangGraph itself keeps, and JSON values, bytes, dates and times, sets,
    dicts with any keys, UUIDs and decimals. All else is refused with ``NotPortable``, which says where it is.

    Values of LangGraph's default serializer are read too, so that a thread may be continued with this one. The arguments are those
    of ``JsonPlusSerializer``, and count for these values alone.
    """

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Make bytes of a value. NotPortable for one that another language could not read."""
        if type(obj) is bytes:
            return "bytes", obj
        if isinstance(obj, BaseException):
            # What a failed task leaves; LangGraph keeps its text too.
            obj = repr(obj)
        value = written(obj)
        try:
            text = _encode(value)
        except RecursionError:
            raise NotPortable("is nested too deeply") from None
        try:
            return PORTABLE, text.encode()
        except UnicodeEncodeError:
            # Lone surrogates have no UTF-8, but escapes.
            return PORTABLE, _encode_ascii(value).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Make a value of bytes. NotPortable for what is written by something else, and what is broken."""
        kind, content = data
        if kind == PORTABLE:
            return _read(content)
        if kind == "json" and b'"lc":2' in content and _is_of_javascript(json.loads(content)):
            raise NotPortable(
                'of the type "json" is of LangGraph.js\'s default serializer, and holds what only JavaScript reads: continue this '
                "thread in TypeScript, or begin threads there with PortableSerializer"
            )
        if kind in _OWN and (kind != "pickle" or self.pickle_fallback):
            return super().loads_typed(data)
        raise NotPortable(
            f"of the type {json.dumps(kind)} is not one that this PortableSerializer reads: it reads {PORTABLE} and what LangGraph's "
            "default serializer for Python writes. "
            + (
                "It is encrypted: use the EncryptedSerializer that wrote it, around a PortableSerializer"
                if "+" in kind
                else "Use the serializer that wrote it; a newer portable format needs a newer agentstorage"
            )
        )


def _read(content: bytes) -> Any:
    try:
        return _decode(content.decode())
    except RecursionError:
        raise NotPortable(_TOO_DEEP) from None
    except NotPortable:
        raise
    except ValueError as error:
        raise NotPortable(f"is not in the portable format: {error}") from None


def _is_of_javascript(value: Any) -> bool:
    """Whether a JSON value holds a record that only LangGraph.js makes, which Python would leave as it stands."""
    parts = [value]
    for part in parts:
        if isinstance(part, dict):
            if part.get("lc") == 2:
                id_of = part.get("id")
                if part.get("type") in ("undefined", "delta_snapshot") or (isinstance(id_of, list) and len(id_of) == 1):
                    return True
            parts.extend(part.values())
        elif isinstance(part, list):
            parts.extend(part)
    return False
