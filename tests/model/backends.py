"""The two servers side by side: the same call to both, and what may differ between their answers taken out."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from agentstorage.v1 import exchange_pb2 as pb
from agentstorage.v1 import runs_pb2 as pb_runs
from tests.rpc.raw_stream import PATH
from tests.rpc.raw_stream import call as exchange_call
from tests.service import METHODS

_DETAILS = "grpc-status-details-bin"
SECONDS = 20.0
#: A stream of events that goes on has said what there is to say by then.
_MOMENT = 0.1
#: Times of the servers' clocks; every other time must be equal.
_CLOCK = frozenset({"createdAt", "updatedAt", "stateUpdatedAt", "finishedAt", "expiresAt"})
#: What every claim makes anew, and what is counted over all owners.
_ANY = frozenset({"leaseToken", "claims"})
_EVENTS = frozenset({"events", "runEvents"})


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
        try:
            answer = self._method(method)(request, timeout=SECONDS)
            if not METHODS[method].server_streaming:
                return answer
            whole = GetMessageClass(METHODS[method].output_type)()
            for part in answer:
                whole.MergeFrom(part)
            return whole
        except grpc.RpcError as error:
            raise _failed(error) from None

    def follow(self, request: Message, seconds: float) -> pb_runs.StreamRunEventsResponse:
        """What a stream of events says first, which is all there is; nothing when it goes on without a word. Raises Failed."""
        stream = self._method("StreamRunEvents")(request, timeout=seconds)
        first = pb_runs.StreamRunEventsResponse()
        try:
            for part in stream:
                assert not first.HasField("run"), "a stream goes on after its end"
                first.MergeFrom(part)
                if not first.HasField("run"):
                    stream.cancel()
                    break
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise _failed(error) from None
        return first

    def _method(self, name: str) -> Any:
        if name not in self._methods:
            descriptor = METHODS[name]
            make = self.channel.unary_stream if descriptor.server_streaming else self.channel.unary_unary
            self._methods[name] = make(
                f"/{descriptor.containing_service.full_name}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(descriptor.output_type).FromString,
            )
        return self._methods[name]


def _failed(error: grpc.RpcError) -> Failed:
    found: Any = error.trailing_metadata() or ()
    trailers: dict[str, Any] = dict(found)
    status = status_pb2.Status.FromString(trailers.get(_DETAILS, b""))
    status.code, status.message = error.code().value[0], error.details() or ""
    return Failed(status, set(trailers))


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
        one = exchange_call(self._last_id, method, request, timeout_ms=int(SECONDS * 1000))
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
    """Values of one side with their counterparts of the other: one to one, and in the same order unless that is anybody's guess."""

    def __init__(self, *, ordered: bool = True) -> None:
        self._forth: dict[Any, Any] = {}
        self._back: dict[Any, Any] = {}
        self._ordered = ordered
        self._loose: list[tuple[Any, Any]] = []

    def loosen(self, first: Any, last: Any) -> None:
        """Let values of the left side between these have several counterparts: what is one step there is several here."""
        self._loose.append((first, last))

    def match(self, left: Any, right: Any) -> str:
        """What is wrong with the pair, or ""."""
        known = self._forth.get(left), self._back.get(right)
        if known == (right, left):
            return ""
        if known[1] in (None, left) and any(first <= left <= last for first, last in self._loose):
            self._back[right] = left
            return ""
        if known != (None, None):
            return f"{left!r} and {right!r} are not the counterparts they were: {known!r}"
        self._forth[left], self._back[right] = right, left
        for mine, theirs in self._forth.items() if self._ordered else ():
            if (mine < left) != (theirs < right):
                return f"{left!r} and {right!r} are in another order beside {mine!r} and {theirs!r}"
        return ""

    def latest(self, place: int) -> tuple[Any, Any] | None:
        """The largest pair but so many, with the same before it on both sides; None when there is none."""
        found = sorted(self._forth.items())[-place:] if place > 0 else []
        if len(found) < place or not found:
            return None
        left, right = found[0]
        same = all((mine <= left) == (theirs <= right) for mine, theirs in self._forth.items())
        return (left, right) if same else None


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
        # Of runs that become due, the time in the statement, and not that of the transaction, puts them in order.
        self._dues, self.positions = Pairs(), Pairs(ordered=False)

    def call(
        self, method: str, request: Message, own: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {})
    ) -> tuple[Any, Any] | Failed:
        """The answers of both, or their failure. ``own`` are fields that each side has another value of. Raises Difference."""
        requests = []
        for fields in own:
            one = type(request)()
            one.CopyFrom(request)
            for name, value in fields.items():
                setattr(one, name, value)
            requests.append(one)
        began = datetime.now(UTC)
        answers = [self._ask(self.sides[0], method, requests[0], _MOMENT)]
        if method == "SweepRuns":
            # Runs that are stopped are each a transaction.
            self._times.loosen(began, datetime.now(UTC))
        answers.append(self._ask(self.sides[1], method, requests[1], _MOMENT))
        if method == "StreamRunEvents" and _is_silent(answers[0]) != _is_silent(answers[1]):
            # The one that said nothing may have been slow.
            silent = 0 if _is_silent(answers[0]) else 1
            answers[silent] = self._ask(self.sides[silent], method, requests[silent], SECONDS)
        left, right = answers
        where = f"{method} {MessageToDict(request)} {own}"
        if isinstance(left, Failed) or isinstance(right, Failed):
            wrong = self._compare_failures(left, right, request)
            if wrong:
                shown = [answer.seen if isinstance(answer, Failed) else MessageToDict(answer) for answer in answers]
                raise Difference(f"{where}\n  {wrong}\n  memory:   {shown[0]}\n  postgres: {shown[1]}")
            if left.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE):
                raise Difference(f"{where}\n  both: {left.seen}")
            return left if isinstance(left, Failed) else right
        if method == "StreamRunEvents":
            # Those of runs that one call ended are in any order.
            for answer in (left, right):
                positions = [event.position for event in answer.events]
                assert positions == sorted(set(positions))
                answer.events.sort(key=lambda event: (event.run_id, event.sequence))
        wrong = self._compare(MessageToDict(left), MessageToDict(right), "", "")
        if wrong:
            raise Difference(
                f"{where}\n  {wrong}\n  memory:   {MessageToDict(left)}\n  postgres: {MessageToDict(right)}"
            )
        return left, right

    @staticmethod
    def _ask(side: Side, method: str, request: Message, seconds: float) -> Any:
        try:
            return side.follow(request, seconds) if method == "StreamRunEvents" else side.call(method, request)
        except Failed as failed:
            return failed

    def _compare_failures(self, left: Any, right: Any, request: Any) -> str:
        if not (isinstance(left, Failed) and isinstance(right, Failed)):
            return "only one failed"
        mine, theirs = dict(left.seen), dict(right.seen)
        if mine["reason"] == theirs["reason"] == "EVENTS_DELETED" and request.thread_id:
            first, second = mine.pop("metadata")["first"], theirs.pop("metadata")["first"]
            if wrong := self.positions.match(int(first), int(second)):
                return wrong
        return "" if mine == theirs else "the failures differ"

    def _compare(self, left: Any, right: Any, name: str, within: str) -> str:
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return f"{name} has {sorted(left.keys() ^ right.keys())} on one side only"
            return next(filter(None, (self._compare(left[key], right[key], key, name) for key in left)), "")
        if isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return f"{name} has {len(left)} and {len(right)} entries"
            pairs = zip(left, right, strict=True)
            return next(filter(None, (self._compare(*pair, name, within) for pair in pairs)), "")
        wrong = self._compare_values(left, right, name, within)
        return f"{name}: {wrong}" if wrong else ""

    def _compare_values(self, left: Any, right: Any, name: str, within: str) -> str:
        if name in ("nextPageToken", "bytes"):
            return "" if bool(left) == bool(right) else "on one side only"
        if name in _ANY or (name == "createdAt" and within in _EVENTS):
            return ""
        if name == "oldestWaitSeconds":
            return "" if abs(left - right) < SECONDS else f"{left!r} and {right!r}"
        if name == "expiresAt" and within in ("lease", ""):
            # Of a lease: by the clock, and not by the time of the transaction.
            apart = datetime.fromisoformat(left) - datetime.fromisoformat(right)
            return "" if abs(apart.total_seconds()) < SECONDS else f"{left!r} and {right!r}"
        if name in _CLOCK or name == "runAfter":
            # As texts, a whole millisecond would come after its microseconds.
            times = self._dues if name == "runAfter" else self._times
            return times.match(datetime.fromisoformat(left), datetime.fromisoformat(right))
        if name == "position":
            return self.positions.match(int(left), int(right))
        if name == "sequence" and within not in _EVENTS:
            return self._sequences.match(int(left), int(right))
        return "" if left == right else f"{left!r} and {right!r}"


def _is_silent(answer: Any) -> bool:
    return not isinstance(answer, Failed) and not answer.ByteSize()
