"""The two servers side by side: the same call to both, and what may differ between their answers taken out."""

from __future__ import annotations

import json
import queue
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from agentstorage.v1 import exchange_pb2 as pb
from tests.rpc.raw_stream import PATH
from tests.rpc.raw_stream import call as exchange_call
from tests.service import METHODS

_DETAILS = "grpc-status-details-bin"
_SECONDS = 20.0
#: Times of the servers' clocks; every other time must be equal.
_CLOCK = frozenset({"createdAt", "updatedAt", "stateUpdatedAt", "finishedAt", "expiresAt"})


class Failed(Exception):
    """A call failed; two failures with equal ``seen`` look the same to a client.

    Args:
        status: Why, as the server says it.
        trailers: What else came with it.
    """

    def __init__(self, status: status_pb2.Status, trailers: set[str]) -> None:
        self.code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        info, fields = error_details_pb2.ErrorInfo(), {}
        for detail in status.details:
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                fields = {item.field: item.description for item in bad_request.field_violations}
            else:
                detail.Unpack(info)
        self.id = info.metadata.get("id", "")
        self.seen: dict[str, Any] = {
            "code": self.code.name,
            "message": status.message,
            "reason": info.reason,
            "metadata": dict(info.metadata),
            "fields": fields,
            "trailers": sorted(trailers - {_DETAILS}),
        }
        super().__init__(json.dumps(self.seen))


class Side:
    """One server."""

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.channel = grpc.insecure_channel(target)
        self._methods: dict[str, Any] = {}

    def close(self) -> None:
        """End the connection."""
        self.channel.close()

    def call(self, method: str, request: Message) -> Any:
        """The answer; of a stream all messages as one. Raises Failed."""
        if method not in self._methods:
            descriptor = METHODS[method]
            make = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
            self._methods[method] = make(
                f"/{descriptor.containing_service.full_name}/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(descriptor.output_type).FromString,
            )
        try:
            answer = self._methods[method](request, timeout=_SECONDS)
            if not METHODS[method].server_streaming:
                return answer
            whole = GetMessageClass(METHODS[method].output_type)()
            for part in answer:
                whole.MergeFrom(part)
            return whole
        except grpc.RpcError as error:
            found: Any = error.trailing_metadata() or ()
            trailers: dict[str, Any] = dict(found)
            status = status_pb2.Status.FromString(trailers.get(_DETAILS, b""))
            status.code, status.message = error.code().value[0], error.details() or ""
            raise Failed(status, set(trailers)) from None


class ExchangeSide(Side):
    """One server, its unary methods through one stream of the exchange."""

    def __init__(self, name: str, target: str) -> None:
        super().__init__(name, target)
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stream: Any = self.channel.stream_stream(PATH, None, None)
        self._messages: Any = stream(iter(self._requests.get, None))
        self._last_id = 0

    def call(self, method: str, request: Message) -> Any:
        if METHODS[method].server_streaming:
            return super().call(method, request)
        self._last_id += 1
        one = exchange_call(self._last_id, method, request, timeout_ms=int(_SECONDS * 1000))
        self._requests.put(pb.ExchangeRequest(calls=[one]).SerializeToString())
        data = b""
        while True:
            # One call at a time: whatever comes is its answer.
            for reply in pb.ExchangeResponse.FromString(next(self._messages)).replies:
                assert reply.id == self._last_id
                if reply.WhichOneof("outcome") == "error":
                    raise Failed(status_pb2.Status.FromString(reply.error.SerializeToString()), set())
                data += reply.response
                if not reply.more:
                    return GetMessageClass(METHODS[method].output_type).FromString(data)

    def close(self) -> None:
        self._requests.put(None)
        super().close()


class Pairs:
    """Values of one side with their counterparts of the other: one to one, and in the same order."""

    def __init__(self) -> None:
        self._forth: dict[Any, Any] = {}
        self._back: dict[Any, Any] = {}

    def match(self, left: Any, right: Any) -> str:
        """What is wrong with the pair, or ""."""
        known = self._forth.get(left), self._back.get(right)
        if known == (right, left):
            return ""
        if known != (None, None):
            return f"{left!r} and {right!r} are not the counterparts they were: {known!r}"
        self._forth[left], self._back[right] = right, left
        for mine, theirs in self._forth.items():
            if (mine < left) != (theirs < right):
                return f"{left!r} and {right!r} are in another order beside {mine!r} and {theirs!r}"
        return ""


class Difference(AssertionError):
    """The two sides answered differently."""


class Both:
    """Both servers: every call goes to both, and their answers must be the same."""

    def __init__(self, memory: Side, postgres: Side) -> None:
        self.sides = (memory, postgres)
        self.forget()

    def forget(self) -> None:
        """Begin a new example."""
        self._times, self._sequences = Pairs(), Pairs()

    def call(self, method: str, request: Message, tokens: tuple[str, str] = ("", "")) -> tuple[Any, Any] | Failed:
        """The answers of both, or their failure. Raises Difference."""
        answers: list[Any] = []
        for side, token in zip(self.sides, tokens, strict=True):
            own = type(request)()
            own.CopyFrom(request)
            if token:
                own.page_token = token  # type: ignore[attr-defined]
            try:
                answers.append(side.call(method, own))
            except Failed as failed:
                answers.append(failed)
        left, right = answers
        where = f"{method} {MessageToDict(request)}"
        if isinstance(left, Failed) or isinstance(right, Failed):
            shown = [answer.seen if isinstance(answer, Failed) else MessageToDict(answer) for answer in answers]
            if shown[0] != shown[1]:
                raise Difference(f"{where}\n  memory:   {shown[0]}\n  postgres: {shown[1]}")
            if left.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
                raise Difference(f"{where}\n  both: {left.seen}")
            return left if isinstance(left, Failed) else right
        wrong = self._compare(MessageToDict(left), MessageToDict(right), "")
        if wrong:
            raise Difference(
                f"{where}\n  {wrong}\n  memory:   {MessageToDict(left)}\n  postgres: {MessageToDict(right)}"
            )
        return left, right

    def _compare(self, left: Any, right: Any, name: str) -> str:
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return f"{name} has {sorted(left.keys() ^ right.keys())} on one side only"
            return next(filter(None, (self._compare(left[key], right[key], key) for key in left)), "")
        if isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return f"{name} has {len(left)} and {len(right)} entries"
            return next(filter(None, (self._compare(*pair, name) for pair in zip(left, right, strict=True))), "")
        if name in ("nextPageToken", "bytes"):
            return "" if bool(left) == bool(right) else f"{name} on one side only"
        if name in _CLOCK:
            # As texts, a whole millisecond would come after its microseconds.
            wrong = self._times.match(datetime.fromisoformat(left), datetime.fromisoformat(right))
        elif name == "sequence":
            wrong = self._sequences.match(int(left), int(right))
        else:
            wrong = "" if left == right else f"{left!r} and {right!r}"
        return f"{name}: {wrong}" if wrong else ""
