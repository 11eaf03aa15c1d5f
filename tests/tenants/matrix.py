"""Every way in which a request can name something, from the descriptors, and what is asked of each.

An attacker sends a call that names the victim's row, and another attacker, with the same rows of its own, one that names nothing. Both
must get the same, and the victim's rows must stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.json_format import MessageToDict

from agentstorage.v1 import options_pb2
from tests.service import METHODS, Api, CallFailed

#: Fields that hold no id of a row: who calls, and which retry it is.
_NO_IDS = ("owner_id", "request_id")
#: Texts that name rows, or parts of their names, though their format is not that of an id.
_NAMES = (
    *("namespace", "namespace_prefix", "key", "key_prefix", "path", "page_token", "user_id"),
    *("thread_id", "checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "expected_parent_id", "before"),
)
#: JSON whose keys name rows: of metadata "owner" and "assistant_id".
_JSON = ("metadata", "values", "parent_checkpoint")
#: Numbers that stand for a row.
_NUMBERS = ("lease_token",)
_TIMES = re.compile(
    r'"\d{4}-\d\d-\d\dT[^"]*"|"(sequence|bytes|position|leaseToken|claims)": "\d+"|"oldestWaitSeconds": [\d.e+-]+'
)
#: A stream that has not ended by then goes on.
STREAM_SECONDS = 10.0


def fields_that_name(descriptor: Descriptor, path: str = "") -> Iterator[str]:
    """The fields of a request, and of the messages in it, that can name a row."""
    field: Any
    for field in descriptor.fields:
        rule = field.GetOptions().Extensions[options_pb2.rule]
        inner = field.message_type
        is_name = field.name in (*_NAMES, *_JSON) and field.type == field.TYPE_STRING
        is_name = is_name or field.name in _NUMBERS
        if is_name or (rule.format == options_pb2.FORMAT_ID and field.name not in _NO_IDS):
            # The value of a filter and "key" of a filter are about values, not about places.
            if descriptor.name != "Filter":
                yield path + field.name
        elif inner is not None and inner.file.package == "agentstorage.v1":
            yield from fields_that_name(inner, f"{path}{field.name}.")


ALL = {(method, field) for method, it in METHODS.items() for field in (*fields_that_name(it.input_type), "")}


@dataclass(frozen=True)
class Rows:
    """The rows of one owner: their ids hold its name. ``token`` is that of the leased run."""

    owner: str
    token: int = 7

    def __getattr__(self, kind: str) -> str:
        return f"{kind}-{self.owner}"

    def item(self) -> dict[str, Any]:
        """Where the item is."""
        return {"namespace": [self.space, "notes"], "key": self.key}

    def channel(self) -> dict[str, Any]:
        """The value of a channel."""
        return {"channel": "c", "version": self.version, "type": self.owner, "value": "aaaa"}

    def write(self) -> dict[str, Any]:
        """A write of a task."""
        return {"task_id": self.task, "channel": "c", "type": self.owner, "value": "aaaa"}

    def metadata(self) -> str:
        """Metadata that names the owner and its assistant."""
        return json.dumps({"owner": self.owner, "assistant_id": self.assistant})


async def populate(api: Api) -> Rows:
    """A new owner with a row of every kind, and two of what has pages."""
    rows = Rows(f"o{uuid.uuid4().hex[:12]}")
    own: dict[str, Any] = {"owner_id": rows.owner, "metadata": rows.metadata()}
    for mark in ("", "2"):
        await _make(api, rows, own, mark)
    return await _work(api, rows)


async def _work(api: Api, rows: Rows) -> Rows:
    """A run that is leased, one whose lease has lapsed and one that has ended, each on a thread of its own."""
    own: dict[str, Any] = {"owner_id": rows.owner}
    kinds = {"leased": (rows.desk, 3600), "lapsed": (rows.bench, 1e-9), "ended": (rows.shelf, 3600)}
    makes: dict[str, Any] = {"assistant_id": rows.assistant, "if_not_exists": "IF_NOT_EXISTS_CREATE"}
    # One after the other, since searches have them in this order. The other runs are due later.
    for year, (kind, (thread, _)) in enumerate(kinds.items(), 2001):
        run: dict[str, Any] = {"run_id": getattr(rows, kind), "thread_id": thread}
        await api.call("CreateRun", **own, **makes, **run, run_after=f"{year}-01-01T00:00:00Z")
    held: dict[str, dict[str, Any]] = {}
    for kind, (_, seconds) in kinds.items():
        taken = await api.call("ClaimRuns", **own, worker_id=rows.worker, lease_seconds=seconds)
        assert [one.run.run_id for one in taken.runs] == [getattr(rows, kind)]
        held[kind] = {**own, "run_id": taken.runs[0].run.run_id, "lease_token": taken.runs[0].lease_token}
    events: dict[str, Any] = {"first_sequence": 1, "events": [{"type": "t", "data": "aaaa"}, {"type": rows.owner}]}
    await asyncio.gather(*(api.call("AppendRunEvents", **held[kind], **events) for kind in ("leased", "ended")))
    await api.call("FinishRun", **held["ended"], status="RUN_STATUS_SUCCESS")
    return replace(rows, token=held["leased"]["lease_token"])


async def _make(api: Api, rows: Rows, own: dict[str, Any], mark: str) -> None:
    assistant, thread = rows.assistant + mark, rows.thread + mark
    refers: dict[str, Any] = {"assistant_id": assistant, "thread_id": thread}
    waits: dict[str, Any] = {"multitask_strategy": "MULTITASK_STRATEGY_ENQUEUE"}
    item: dict[str, Any] = rows.item() | {"key": rows.key + mark}
    await asyncio.gather(
        api.call("CreateAssistant", **own, assistant_id=assistant, graph_id="agent"),
        api.call("CreateThread", **own, thread_id=thread),
        api.call("PutItem", **own, **item, value='{"v": 1}'),
    )
    await asyncio.gather(
        api.call("UpdateAssistant", owner_id=rows.owner, assistant_id=assistant, name="second"),
        api.call("CreateRun", **own, run_id=rows.run + mark, **refers, **waits),
        api.call("CreateCron", **own, cron_id=rows.cron + mark, **refers, schedule="0 0 1 1 *"),
    )
    for state in (rows.state, rows.later):
        await api.call("AddThreadState", **own, thread_id=thread, checkpoint_id=state, values='{"v": 1}')
        await _make_checkpoints(api, rows, thread, state)


async def _make_checkpoints(api: Api, rows: Rows, thread: str, id: str) -> None:
    """A checkpoint of the graph and one of a subgraph, with a value and a write each."""
    document = json.dumps({"v": 4, "channel_versions": {"c": rows.version}})
    for namespace in ("", rows.checkpoint_ns):
        place: dict[str, Any] = {"owner_id": rows.owner, "thread_id": thread, "checkpoint_ns": namespace}
        await api.call(
            "PutCheckpoint",
            **place,
            checkpoint_id=id,
            parent_checkpoint_id=rows.later if id == rows.state else "",
            checkpoint=document,
            metadata=json.dumps({"run_id": rows.run}),
            channels=[rows.channel()],
        )
        await api.call("PutWrites", **place, checkpoint_id=id, writes=[rows.write()])


async def everything(api: Api, rows: Rows) -> str:
    """All that an owner has, as text."""
    parts = [MessageToDict(part) for part in await api.stream("ExportOwner", owner_id=rows.owner)]
    return json.dumps(parts, sort_keys=True)


def base(method: str, mine: Rows) -> dict[str, Any]:
    """The fields of a call that is right in every way, on the caller's own rows."""
    assistant, thread = {"assistant_id": mine.assistant}, {"thread_id": mine.thread}
    run, cron, place = {"run_id": mine.run}, {"cron_id": mine.cron}, mine.item()
    held = {"run_id": mine.leased, "lease_token": mine.token}
    made: dict[str, dict[str, Any]] = {
        "CreateAssistant": {"assistant_id": mine.new, "graph_id": "agent"},
        "CreateThread": {"thread_id": mine.new},
        "CreateRun": {"run_id": mine.new, **assistant, **thread, "multitask_strategy": "MULTITASK_STRATEGY_ENQUEUE"},
        "CreateCron": {"cron_id": mine.new, **assistant, **thread, "schedule": "0 0 1 1 *"},
        "CopyThread": {**thread, "new_thread_id": mine.new},
        "AddThreadState": {**thread, "checkpoint_id": mine.new},
        "UpdateAssistant": {**assistant, "name": "third"},
        "DeleteAssistant": {**assistant, "delete_threads": True},
        "SetLatestAssistantVersion": {**assistant, "version": 1},
        "UpdateThread": {**thread, "values": "{}"},
        "UpdateRun": {**run, "kwargs": "{}"},
        "CancelRuns": {"run_ids": [mine.run]},
        "ClaimRuns": {"worker_id": mine.worker, "limit": 100},
        "HeartbeatRun": held,
        "FinishRun": {**held, "status": "RUN_STATUS_ERROR", "values": "{}"},
        "ReleaseRun": held,
        "AppendRunEvents": {**held, "first_sequence": 3, "events": [{"type": "t"}]},
        "StreamRunEvents": {"run_id": mine.ended},
        "WaitRun": {"run_id": mine.ended},
        "SweepRuns": {},
        "FireDueCrons": {},
        "UpdateCron": {**cron, "payload": "{}"},
        "PutItem": {**place, "value": "2"},
        "PruneThreads": {"thread_ids": [mine.thread], "strategy": "PRUNE_STRATEGY_DELETE"},
        "DeleteNamespace": {"namespace": place["namespace"]},
        "Batch": {"operations": [{"get": place}]},
        "Truncate": {"resources": ["RESOURCE_THREADS"]},
        "PutCheckpoint": {**thread, "checkpoint_id": mine.new, "checkpoint": "{}"},
        "PutWrites": {**thread, "checkpoint_id": mine.state, "writes": [mine.write() | {"index": 1}]},
        "CommitSuperstep": {**thread, "checkpoint_id": mine.new, "checkpoint": "{}"},
        "GetCheckpoint": thread,
        "GetDeltaChannelHistory": {**thread, "channels": ["c"]},
        "DeleteThreadCheckpoints": thread,
        "DeleteRunCheckpoints": {"run_ids": [mine.run]},
        "CopyThreadCheckpoints": {**thread, "new_thread_id": mine.new},
        "PruneCheckpoints": {"thread_ids": [mine.thread], "strategy": "PRUNE_STRATEGY_KEEP_LATEST"},
    }
    if method in made:
        return made[method]
    kind = re.sub(r"(?<!^)([A-Z])", r" \1", method).split()[-1].lower()
    by_kind = {"assistant": assistant, "thread": thread, "run": run, "cron": cron, "item": place}
    if method.startswith(("Get", "Delete")) and kind in by_kind and method != "GetActiveRun":
        return by_kind[kind]
    return {"ListAssistantVersions": assistant}.get(method) or (
        thread if method in ("GetActiveRun", "GetThreadState", "ListThreadStates", "SetThreadStatus") else {}
    )


_KINDS = {
    "before": "later",
    "checkpoint_id": "state",
    "parent_checkpoint_id": "state",
    "expected_parent_id": "state",
    "new_thread_id": "thread",
    "user_id": "user",
}


#: Fields that say what a call is about instead of others, with the kind of row that they name here.
_INSTEAD = {("CancelRuns", "thread_id"): "thread", ("StreamRunEvents", "thread_id"): "shelf"}


def named(method: str, field: str, base: dict[str, Any], theirs: Rows) -> dict[str, Any]:
    """The fields of the call with one of them naming what another owner has."""
    path, _, name = field.rpartition(".")
    if kind := _INSTEAD.get((method, field)):
        return {name: getattr(theirs, kind)}
    if name == "lease_token":
        return base | {name: theirs.token}
    if name == "run_id" and name in base:
        # Of the kind that the caller's own one is, and with a token that is right.
        about = {name: getattr(theirs, base[name].partition("-")[0])}
        return base | about | ({"lease_token": theirs.token} if "lease_token" in base else {})
    if name == "run_ids":
        return base | {name: [theirs.run, theirs.leased, theirs.lapsed]}
    if path.startswith("operations."):
        kind = path.split(".")[1]
        return {"operations": [{kind: _operation(kind, theirs)}]}
    if path == "channels":
        return base | {path: [theirs.channel()]}
    if path == "writes" and name == "task_id":
        return base | {path: [theirs.write()]}
    if path.startswith("writes"):
        group = {"checkpoint_id": theirs.state, "checkpoint_ns": theirs.checkpoint_ns, "writes": [theirs.write()]}
        return base | {"writes": [group]}
    if name == "path":
        return base | {"matches": [{"path": [theirs.space]}]}
    if name in ("namespace", "key"):
        place = theirs.item()
        return base | {key: place[key] for key in place if key in base}
    if name == "namespace_prefix":
        return base | {"namespace_prefix": [theirs.space]}
    if name == "key_prefix":
        return base | {"key_prefix": theirs.key}
    if name == "parent_checkpoint":
        return base | {name: json.dumps({"thread_id": theirs.thread, "checkpoint_id": theirs.state})}
    if name == "metadata":
        return base | {name: theirs.metadata()}
    if name == "values":
        return base | {name: json.dumps({"thread_id": theirs.thread})}
    if name.endswith("_ids"):
        return base | {name: [getattr(theirs, name.removesuffix("_ids"))]}
    return base | {name: getattr(theirs, _KINDS.get(name, name.removesuffix("_id")))}


def _operation(kind: str, theirs: Rows) -> dict[str, Any]:
    if kind == "search":
        return {"namespace_prefix": [theirs.space], "key_prefix": theirs.key}
    if kind == "list_namespaces":
        return {"matches": [{"path": [theirs.space]}]}
    return theirs.item() | ({"value": "2", "metadata": theirs.metadata()} if kind == "put" else {})


async def answer(api: Api, method: str, mine: Rows, theirs: Rows, fields: dict[str, Any]) -> str:
    """What a call gave, with the names of both owners and the times taken out."""
    try:
        if METHODS[method].server_streaming:
            got: Any = await _streamed(api, method, mine, fields)
        else:
            got = MessageToDict(await api.call(method, owner_id=mine.owner, **fields))
    except CallFailed as failure:
        got = [failure.code.name, failure.message, failure.reason, failure.metadata, failure.fields]
    text = json.dumps(got, sort_keys=True, ensure_ascii=False)
    return _TIMES.sub('""', text.replace(mine.owner, "MINE").replace(theirs.owner, "THEIRS"))


async def _streamed(api: Api, method: str, mine: Rows, fields: dict[str, Any]) -> list[Any]:
    """The messages of a stream, or that it goes on: only one that is about what it should not be does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STREAM_SECONDS if method == "StreamRunEvents" else None):
            return [MessageToDict(part) for part in await api.stream(method, owner_id=mine.owner, **fields)]
    return ["goes on"]


async def check(api: Api, method: str, field: str) -> None:
    """The rule of the matrix for one field of one method, or, for "", for the method on the caller's own rows."""
    reads = METHODS[method].GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    victim, nobody = await _shared(api, "victim"), Rows(f"o{uuid.uuid4().hex[:12]}")
    # Only a method that reads leaves its callers' rows as they were, for the next one.
    first, second = [await _shared(api, mark) if reads else await populate(api) for mark in ("first", "second")]
    before = await everything(api, victim)
    answers = []
    for mine, theirs in ((first, victim), (second, nobody)):
        fields = base(method, mine)
        answers.append(
            await answer(api, method, mine, theirs, named(method, field, fields, theirs) if field else fields)
        )
    assert answers[0] == answers[1], "another owner's id gives another answer than one that is nowhere"
    assert await everything(api, victim) == before, "the other owner's rows changed"
    if not reads:
        left = [await _cleared(api, mine, theirs) for mine, theirs in ((first, victim), (second, nobody))]
        assert left[0] == left[1], "another owner's id left other rows behind than one that is nowhere"


async def _cleared(api: Api, mine: Rows, theirs: Rows) -> list[str]:
    """All rows of an owner with the names and times taken out, in an order that does not hang on the names."""
    found = []
    for part in await api.stream("ExportOwner", owner_id=mine.owner):
        for kind, rows in MessageToDict(part).items():
            found += [kind + json.dumps(row, sort_keys=True) for row in rows]
    return sorted(_TIMES.sub('""', row.replace(mine.owner, "MINE").replace(theirs.owner, "THEIRS")) for row in found)


_known: dict[tuple[str, str], Rows] = {}


async def _shared(api: Api, mark: str) -> Rows:
    """An owner that several checks use, since none may change its rows."""
    if (api.backend, mark) not in _known:
        _known[api.backend, mark] = await populate(api)
    return _known[api.backend, mark]


def forget() -> None:
    """Use other owners from now on: the next checks are of another service, or of one that lets rows be changed."""
    _known.clear()
