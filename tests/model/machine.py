"""The state machine: random calls to both sides, and what follows from their answers."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any, ClassVar, TypeAlias

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from agentstorage.v1 import crons_pb2
from agentstorage.v1 import runs_pb2 as pb
from tests.model import requests
from tests.model import values as pools
from tests.model.backends import Both, Failed
from tests.model.direct import RUN_ATTEMPTS, DirectSide, Ids
from tests.service import METHODS

_GETS = {"assistants": "GetAssistant", "threads": "GetThread", "runs": "GetRun", "crons": "GetCron", "items": "GetItem"}
_COUNTS = {
    "SearchAssistants": "CountAssistants",
    "SearchThreads": "CountThreads",
    "SearchRuns": "CountRuns",
    "SearchCrons": "CountCrons",
}
_FIRST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("CreateAssistant", {"assistant_id": "assistant-1", "graph_id": "agent"}),
    ("CreateThread", {"thread_id": "thread-1", "metadata": '{"assistant_id": "assistant-1"}'}),
    ("AddThreadState", {"thread_id": "thread-1", "checkpoint_id": "state-1"}),
    ("CreateRun", {"run_id": "run-1", "thread_id": "thread-1", "assistant_id": "assistant-1"}),
    ("CreateCron", {"cron_id": "cron-1", "assistant_id": "assistant-1", "schedule": "0 0 1 1 *"}),
    ("PutItem", {"namespace": ["a", "b"], "key": "k", "value": '{"a": 9.50}'}),
    ("PutCheckpoint", {"thread_id": "thread-1", "checkpoint_id": "state-1", "checkpoint": '{"v": 4}'}),
    # These succeed only where chance names what is there.
    ("GetItem", {"namespace": ["a", "b"], "key": "k"}),
    ("SetLatestAssistantVersion", {"assistant_id": "assistant-1", "version": 1}),
    ("GetDeltaChannelHistory", {"thread_id": "thread-1", "channels": ["a"]}),
    ("GetCheckpoint", {"thread_id": "thread-1"}),
    ("DeleteItem", {"namespace": ["a", "b"], "key": "k"}),
    ("CopyThread", {"thread_id": "thread-1", "new_thread_id": "thread-9"}),
    ("GetAssistant", {"assistant_id": "assistant-1"}),
    ("GetRun", {"run_id": "run-1", "thread_id": "thread-1"}),
    ("UpdateCron", {"cron_id": "cron-1", "enabled": True}),
    ("SetThreadStatus", {"thread_id": "thread-1"}),
    ("CommitSuperstep", {"thread_id": "thread-9", "checkpoint_id": "state-1", "checkpoint": '{"v": 4}'}),
)

_WAITS: dict[str, Any] = {"assistant_id": "assistant-1", "multitask_strategy": pb.MULTITASK_STRATEGY_ENQUEUE}
_FIRST_OF_THE_QUEUE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("CreateThread", {"thread_id": "thread-2"}),
    ("CreateRun", {"run_id": "run-2", "thread_id": "thread-2", **_WAITS}),
    ("CreateRun", {"run_id": "run-é", "thread_id": "thread-1", **_WAITS}),
    ("CreateCron", {"cron_id": "cron-_", "assistant_id": "assistant-%", "schedule": "@yearly", "record_only": True}),
)
#: What a request has of each side's own.
Own: TypeAlias = tuple[dict[str, Any], dict[str, Any]]


def ask(method: str, owner: str | None = None, **fields: Any) -> Any:
    """A request of a method."""
    request: Any = GetMessageClass(METHODS[method].input_type)(**fields)
    if owner is not None:
        request.owner_id = owner
    return request


class Machine(RuleBasedStateMachine):
    """Random calls of two owners, the system owner and none, to both servers."""

    both: ClassVar[Both]
    is_direct: ClassVar[bool]
    about_the_queue: ClassVar[bool]
    steps: ClassVar[int] = 0
    outcomes: ClassVar[Counter[tuple[str, str]]] = Counter()
    # What became of ticks, of claimed runs and of lapsed leases.
    found: ClassVar[Counter[str]] = Counter()
    ids: ClassVar[Ids]

    def __init__(self) -> None:
        super().__init__()
        # What claims gave, on each side: those that may still be good, and the last ones that are not. What is known of runs by that.
        self.claims: list[tuple[pb.ClaimedRun, pb.ClaimedRun]] = []
        self.stale: list[tuple[pb.ClaimedRun, pb.ClaimedRun]] = []
        self.last: dict[str, int] = {}
        self.fired: list[crons_pb2.FiredCron] = []
        mark = uuid.uuid4().hex[:10]
        self.owners = {"@A": f"a-{mark}", "@B": f"b-{mark}", "@system": "system"}
        self.unscoped = False
        self.count = self.ticks = 0

    @initialize(used=st.booleans())
    def begin(self, used: bool) -> None:
        """Make some rows, so that the first calls meet something, and let some of the queue have been used."""
        self.both.forget()
        for method, fields in (*_FIRST, *(_FIRST_OF_THE_QUEUE if self.about_the_queue else ())):
            assert not isinstance(self.both.call(method, ask(method, self.owners["@A"], **fields)), Failed)
            Machine.steps += 1
            Machine.outcomes[method, "OK"] += 1
        if used and self.about_the_queue:
            for lapses, action in (
                (False, pb.CANCEL_ACTION_ROLLBACK),
                (True, pb.CANCEL_ACTION_INTERRUPT),
                (True, None),
            ):
                self.leave(lapses=lapses, action=action)
        if used and self.is_direct:
            self.tick("cron-1", 7200.0, again=True, policy=crons_pb2.MISFIRE_POLICY_SKIP)
            self.tick("cron-1", 30.0, again=True, policy=crons_pb2.MISFIRE_POLICY_COALESCE)
            self.tick("cron-_", 30.0, again=True, policy=None)

    @precondition(lambda self: not self.about_the_queue)
    @rule(drawn=requests.ASSISTANTS)
    def assistants(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @rule(drawn=requests.THREADS)
    def threads(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @rule(drawn=requests.RUNS)
    def runs(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @rule(drawn=requests.CRONS)
    def crons(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @precondition(lambda self: not self.about_the_queue)
    @rule(drawn=requests.ITEMS)
    def items(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @precondition(lambda self: not self.about_the_queue)
    @rule(drawn=requests.CHECKPOINTS)
    def checkpoints(self, drawn: requests.Drawn) -> None:
        self.step(*drawn)

    @rule(seeds=st.lists(st.integers(0, 2**64 - 1), min_size=4, max_size=20))
    def work(self, seeds: list[int]) -> None:
        """Use the queue for a while, as each seed has it."""
        for seed in seeds:
            self.step(*requests.of_the_queue(seed, has_claims=bool(self.claims)))

    @precondition(lambda self: self.about_the_queue)
    @rule(
        lapses=st.booleans(),
        action=st.sampled_from((None, pb.CANCEL_ACTION_INTERRUPT, pb.CANCEL_ACTION_ROLLBACK)),
    )
    def leave(self, *, lapses: bool, action: pb.CancelAction | None) -> None:
        """Make a run anew, claim it with whatever else is due, ask it to stop, and let the leases lapse or finish it."""
        self.step("DeleteRun", "@A", ask("DeleteRun", run_id="run-2", allow_missing=True))
        run = ask("CreateRun", thread_id="thread-2", run_id="run-2", if_not_exists=pb.IF_NOT_EXISTS_CREATE, **_WAITS)
        self.step("CreateRun", "@A", run)
        for _ in range(RUN_ATTEMPTS + 1 if lapses else 1):
            seconds = 1e-9 if lapses else 3600.0
            self.step("ClaimRuns", "@A", ask("ClaimRuns", worker_id="worker-1", limit=100, lease_seconds=seconds))
            if action is not None:
                self.step("CancelRuns", "@A", ask("CancelRuns", run_ids=["run-2"], action=action))
            if lapses:
                self.step("SweepRuns", "@A", ask("SweepRuns", limit=1000))
        for place, (claimed, _) in enumerate(reversed(self.claims[1 - pools.OF_CLAIMS :]), 1):
            if claimed.run.run_id == "run-2":
                self.step("FinishRun", "@A", ask("FinishRun", lease_token=place, status=pb.RUN_STATUS_SUCCESS))
                break
        self.step("StreamRunEvents", "@A", ask("StreamRunEvents", run_id="run-2"))

    @precondition(lambda self: self.is_direct)
    @rule(
        cron_id=st.sampled_from(pools.IDS["cron_id"]),
        late=st.sampled_from((0.5, 30.0, 7200.0, 0.0)),
        again=st.booleans(),
        policy=st.sampled_from((None, None, crons_pb2.MISFIRE_POLICY_SKIP, crons_pb2.MISFIRE_POLICY_COALESCE)),
    )
    def tick(self, cron_id: str, late: float, again: bool, policy: crons_pb2.MisfirePolicy | None) -> None:
        """Let the tick of a cron have come, and mostly take it; one that was long ago may come again."""
        if policy is not None:
            self.step("UpdateCron", "@A", ask("UpdateCron", cron_id=cron_id, misfire_policy=policy))
        self.ticks += 1
        tick = Timestamp()
        # No two come at once: which is first would be anybody's guess.
        tick.FromMicroseconds(
            round((time.time() - late) * 1_000_000) + self.ticks if late else len(cron_id) * 1_000_000
        )
        left, right = (side.come(cron_id, tick) for side in self.direct_sides())
        assert left == right
        if again and left:
            self.step("FireDueCrons", "@A", ask("FireDueCrons"))

    @precondition(lambda self: self.is_direct)
    @rule(owner=st.sampled_from(("@A", "@B")))
    def time_passes(self, owner: str) -> None:
        """Let the time of the events be over, and that of threads that end with their runs."""
        left, right = (side.sweep(self.owners[owner]) for side in self.direct_sides())
        assert left == right

    def direct_sides(self) -> list[DirectSide]:
        """The sides, where they are in this process."""
        return [side for side in self.both.sides if isinstance(side, DirectSide)]

    def step(self, method: str, owner: str, drawn: Message) -> None:
        """Send a call, and follow up on what it answered."""
        Machine.steps += 1
        request: Any = type(drawn)()
        request.CopyFrom(drawn)
        self.fill_in(request)
        claim = self.claim_of(request)
        own = self.of_each_side(method, request, claim)
        # Mostly the worker that claimed it.
        owner_id = claim[0].owner_id if claim and owner == "@A" else self.owners.get(owner, "")
        if owner_id:
            request.owner_id = owner_id
        else:
            self.unscoped = True
        self.ids.begin()
        answer = self.both.call(method, request, own)
        failed = isinstance(answer, Failed)
        Machine.outcomes[method, answer.code.name if isinstance(answer, Failed) else "OK"] += 1
        if isinstance(answer, Failed):
            if method in _GETS.values() and answer.code.name == "NOT_FOUND":
                self.same_as_absent(method, request, answer)
            if answer.seen["reason"] == "SEQUENCE_MISMATCH":
                self.last[request.run_id] = int(answer.seen["metadata"]["current"])
            if answer.seen["reason"] in ("LEASE_LOST", "NOT_FOUND"):
                self.set_back(own)
        else:
            self.learn(method, request, own, *answer)
            if hasattr(answer[0], "next_page_token") and not request.offset:
                self.pages(method, request, answer)
        self.count += 1
        if self.count % 5 == 0 and not failed:
            for name in self.owners.values():
                self.both.call("ExportOwner", ask("ExportOwner", name))

    def fill_in(self, request: Any) -> None:
        """Put in what the marks of a drawn request stand for."""
        for name in ("metadata", "values"):
            text = getattr(request, name, "")
            if "@" in text:
                for mark, id in self.owners.items():
                    text = text.replace(mark, id)
                setattr(request, name, text)
        for name in ("run_id", "thread_id") if self.fired else ():
            made = getattr(self.fired[-1], name)
            if getattr(request, name, "") == pools.MADE:
                setattr(request, name, made)
            for place, id in enumerate(getattr(request, f"{name}s", ())):
                if id == pools.MADE:
                    getattr(request, f"{name}s")[place] = made

    def claim_of(self, request: Any) -> tuple[pb.ClaimedRun, pb.ClaimedRun] | None:
        """The claim that a drawn token stands for; puts in its run."""
        known = [*reversed(self.claims), *reversed(self.stale[-2:])]
        place = getattr(request, "lease_token", 0)
        if not 0 < place <= min(pools.OF_CLAIMS, len(known)):
            return None
        if place < pools.OF_CLAIMS:
            request.run_id = known[place - 1][0].run.run_id
        return known[place - 1]

    def of_each_side(self, method: str, request: Any, claim: tuple[pb.ClaimedRun, pb.ClaimedRun] | None) -> Own:
        """The fields that the sides have other values of: tokens and positions. Puts in the right sequence as well."""
        if method == "AppendRunEvents" and request.first_sequence >= pools.SEQUENCES - 2:
            request.first_sequence += self.last.get(request.run_id, 0) + 1 - pools.SEQUENCES
        if claim is not None:
            return {"lease_token": claim[0].lease_token}, {"lease_token": claim[1].lease_token}
        if method == "StreamRunEvents" and request.thread_id and (pair := self.both.positions.latest(request.after)):
            return {"after": pair[0]}, {"after": pair[1]}
        return {}, {}

    def set_back(self, own: Own) -> None:
        """Put a claim among those that are not good any more."""
        for pair in [pair for pair in self.claims if pair[0].lease_token == own[0].get("lease_token")]:
            self.claims.remove(pair)
            self.stale.append(pair)

    def learn(self, method: str, request: Any, own: Own, left: Any, right: Any) -> None:
        """Keep what later calls need."""
        if method == "ClaimRuns":
            for pair in zip(left.runs, right.runs, strict=True):
                self.newer(*pair)
                self.claims.append(pair)
                self.last[pair[0].run.run_id] = pair[0].run.last_sequence
                Machine.found["claimed"] += 1
        elif method == "AppendRunEvents":
            self.last[request.run_id] = left.last_sequence
        elif method == "FireDueCrons":
            Machine.found.update(crons_pb2.TickOutcome.Name(one.outcome) for one in left.crons)
            self.fired.extend(one for one in left.crons if one.run_id)
        elif method == "SweepRuns":
            for name in ("requeued", "failed", "stopped"):
                Machine.found[name] += getattr(left, name)
        elif method == "CancelRuns":
            Machine.found["asked"] += len(left.asked_run_ids)
        elif method in ("FinishRun", "ReleaseRun"):
            if method == "FinishRun":
                Machine.found["finished" if left.HasField("run") else "undone"] += 1
            self.set_back(own)
        elif method == "StreamRunEvents":
            Machine.found["followed"] += len(left.events)

    def newer(self, *pair: pb.ClaimedRun) -> None:
        """A later claim of a run has a greater token, on each side."""
        for place, claimed in enumerate(pair):
            former = [one[place] for one in (*self.stale, *self.claims) if one[place].run.run_id == claimed.run.run_id]
            # Unless it is another run of the id, which was deleted meanwhile.
            if former and former[-1].run.attempt < claimed.run.attempt:
                assert former[-1].lease_token < claimed.lease_token

    def same_as_absent(self, method: str, request: Any, failed: Failed) -> None:
        """What is not there for an owner looks like what is nowhere, whoever has it."""
        absent = type(request)()
        absent.CopyFrom(request)
        field = "key" if method == "GetItem" else f"{method.removeprefix('Get').lower()}_id"
        if method == "GetRun":
            absent.ClearField("thread_id")
        setattr(absent, field, "nowhere")
        nowhere = self.both.call(method, absent)
        assert isinstance(nowhere, Failed)
        assert failed.id == getattr(request, field)
        nowhere.seen["metadata"]["id"] = failed.id
        assert nowhere.seen == failed.seen

    def pages(self, method: str, request: Any, answer: tuple[Any, Any]) -> None:
        """Pages of any size make up the whole; the count is its length; each row is what a get answers."""
        field = answer[0].DESCRIPTOR.fields[0].name
        found = list(getattr(answer[0], field))
        while answer[0].next_page_token:
            tokens = ({"page_token": answer[0].next_page_token}, {"page_token": answer[1].next_page_token})
            following = self.both.call(method, request, tokens)
            assert not isinstance(following, Failed), following
            assert getattr(following[0], field), "an empty page"
            answer = following
            found.extend(getattr(answer[0], field))
        whole = type(request)()
        whole.CopyFrom(request)
        for size in (1000, 2):
            whole.page_size = size
            at_once = self.both.call(method, whole)
            assert not isinstance(at_once, Failed)
            assert list(getattr(at_once[0], field))[: len(found)] == found[:size]
        if method in _COUNTS:
            counting = ask(_COUNTS[method])
            for descriptor in counting.DESCRIPTOR.fields:
                if not descriptor.has_presence or request.HasField(descriptor.name):
                    value = getattr(request, descriptor.name)
                    (
                        getattr(counting, descriptor.name).extend
                        if descriptor.is_repeated
                        else _setter(counting, descriptor.name)
                    )(value)
            counted = self.both.call(_COUNTS[method], counting)
            assert not isinstance(counted, Failed)
            assert counted[0].count == len(found)
        if field in _GETS and not request.fields.paths if hasattr(request, "fields") else False:
            for row in found[:3]:
                get = ask(_GETS[field], request.owner_id if request.HasField("owner_id") else None)
                id = get.DESCRIPTOR.fields[1].name
                setattr(get, id, getattr(row, id))
                got = self.both.call(_GETS[field], get)
                assert not isinstance(got, Failed)
                assert getattr(got[0], got[0].DESCRIPTOR.fields[0].name) == row

    def teardown(self) -> None:
        """Erase what the example made, through the API as well, and see that nothing of it is left."""
        try:
            for name in self.owners.values():
                self.both.call("ExportOwner", ask("ExportOwner", name))
                self.both.call("EraseOwner", ask("EraseOwner", name))
        finally:
            self.clean()

    def clean(self) -> None:
        """Leave nothing to the next example, whatever this one found."""
        for side in self.both.sides:
            for name in self.owners.values():
                side.call("EraseOwner", ask("EraseOwner", name))
            if not self.unscoped:
                continue
            for method in _COUNTS:
                kind = method.removeprefix("Search")
                found = getattr(side.call(method, ask(method, page_size=1000)), kind.lower())
                for row in found:
                    id = {field: getattr(row, field) for field in (f"{kind[:-1].lower()}_id",)}
                    delete = f"Delete{kind[:-1]}"
                    side.call(delete, ask(delete, None, **id, allow_missing=True))
            for namespace in pools.NAMESPACES:
                side.call("DeleteNamespace", ask("DeleteNamespace", namespace=namespace))
            for method in _COUNTS.values():
                assert side.call(method, ask(method)).count == 0


def _setter(message: Any, name: str) -> Any:
    return lambda value: setattr(message, name, value)
