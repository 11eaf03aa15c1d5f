"""What must hold of the histories that workers, schedulers and followers of a queue recorded, whatever broke meanwhile.

Every time in a history is the database's, in microseconds: a lease counts from what its answer says, never from a worker's own clock. Each
check gives what is wrong, in words; nothing is wrong with an empty list.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

#: An entry of a worker's history, as JSON has it.
Entry: TypeAlias = Mapping[str, Any]

PENDING, RUNNING, SUCCESS, ERROR, TIMEOUT, INTERRUPTED = range(1, 7)
IDLE, BUSY, THREAD_INTERRUPTED, THREAD_ERROR = range(1, 5)
#: What the end of a run leaves its thread as.
LEFT: Final = {SUCCESS: IDLE, ERROR: THREAD_ERROR, TIMEOUT: THREAD_ERROR, INTERRUPTED: THREAD_INTERRUPTED}
_NEVER: Final = 2**62


@dataclass
class Lease:
    """What a worker did with one lease, as far as it was told.

    ``since`` is when it got it, ``known_until`` the last time at which it had it for certain, ``lapses`` when it was to lapse at the
    earliest: later with each of the ``beats_unknown``, heartbeats of which an answer was lost. ``finish`` is the status with which the run
    was to end, 0 without; ``finished_at`` is there when that was accepted, ``was_given_up`` when the run was given back, or may have been
    given back.
    """

    run: str
    thread: str
    worker: str
    token: int
    attempt: int
    since: int
    lapses: int
    known_until: int = 0
    beats_unknown: int = 0
    finish: int = 0
    finished_at: int = 0
    was_given_up: bool = False
    sent: dict[int, list[str]] = field(default_factory=dict)
    appended: set[int] = field(default_factory=set)
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def held_until(self) -> int:
        """Until when nobody else may have had the run, or another run of its thread."""
        if self.finished_at:
            return max(self.finished_at, self.known_until)
        # What was sent may have been done, at any time since the last answer.
        if self.finish or self.was_given_up:
            return self.known_until
        return max(self.lapses, self.known_until)


@dataclass(frozen=True)
class Event:
    """An event of a log. ``end`` is 0 but in the end marker."""

    sequence: int
    position: int
    data: str
    attempt: int
    created_at: int = 0
    end: int = 0


@dataclass(frozen=True)
class Ended:
    """A run as it is when all is over, with its log."""

    run: str
    thread: str
    status: int
    attempt: int
    finished_at: int
    last_sequence: int
    error: str = ""
    events: Sequence[Event] = ()


def leases_of(entries: Iterable[Entry]) -> list[Lease]:
    """The leases of some histories, which are each in the order in which they were written."""
    leases: dict[tuple[str, int], Lease] = {}
    for entry in entries:
        what = entry["what"]
        if what == "claimed":
            lease = Lease(*(entry[name] for name in ("run", "thread", "worker", "token", "attempt", "since", "lapses")))
            lease.known_until = lease.since
            assert (lease.run, lease.token) not in leases, f"{lease.run} was claimed twice with token {lease.token}"
            leases[lease.run, lease.token] = lease
            continue
        _note(leases[entry["run"], entry["token"]], what, entry)
    return list(leases.values())


def _note(lease: Lease, what: str, entry: Entry) -> None:
    if what == "beating":
        lease.beats_unknown += 1
    elif what == "beat":
        # What a dying server had sent on may be done after the answer of another, and makes the lease longer once more.
        if not entry["again"]:
            lease.beats_unknown -= 1
        lease.known_until, lease.lapses = max(lease.known_until, entry["at"]), entry["lapses"]
    elif what == "appending":
        lease.sent[entry["first"]] = list(entry["data"])
    elif what == "appended":
        lease.appended.add(entry["first"])
    elif what == "finishing":
        lease.finish = entry["status"]
    elif what == "finished":
        lease.finished_at = entry["at"] or lease.known_until
    elif what == "releasing":
        lease.was_given_up = True
    elif what == "refused":
        lease.refused[entry["call"]] += 1
        # A refusal says that it had not been done; a finish that was sent before may have been all the same.
        if entry["call"] == "FinishRun" and not entry["again"]:
            lease.finish = 0
        if entry["call"] == "HeartbeatRun" and not entry["again"]:
            lease.beats_unknown -= 1
    else:
        assert what == "released", f"{what} is no entry"


def check_leases(leases: Sequence[Lease]) -> list[str]:
    """One lease at a time of each run and of each thread; tokens and attempts that grow; ends within a lease's time."""
    wrong = [
        f"token {token} was given {count} times"
        for token, count in Counter(lease.token for lease in leases).items()
        if count > 1
    ]
    for run, own in _by("run", leases).items():
        for before, after in itertools.pairwise(own):
            if after.token <= before.token:
                wrong.append(f"{run}: token {after.token} came after {before.token}")
            if after.attempt <= before.attempt:
                wrong.append(f"{run}: attempt {after.attempt} came after {before.attempt}")
            if before.finished_at:
                wrong.append(f"{run}: claimed with {after.token} though {before.token} had ended it")
    for thread, own in _by("thread", leases).items():
        latest = own[0]
        for lease in own[1:]:
            if lease.since < latest.held_until:
                wrong.append(
                    f"{thread}: {lease.worker} got {lease.run} ({lease.token}) {latest.held_until - lease.since} us"
                    f" before the lease of {latest.worker} on {latest.run} ({latest.token}) was over"
                )
            latest = max(latest, lease, key=lambda one: one.held_until)
    for lease in leases:
        if lease.finished_at > (_NEVER if lease.beats_unknown else lease.lapses):
            wrong.append(f"{lease.run}: {lease.token} ended it {lease.finished_at - lease.lapses} us after its lease")
    return wrong


def _by(name: str, leases: Iterable[Lease]) -> dict[str, list[Lease]]:
    """The leases of each run, or thread, in the order in which they were given."""
    found: dict[str, list[Lease]] = defaultdict(list)
    for lease in sorted(leases, key=lambda lease: lease.since):
        found[getattr(lease, name)].append(lease)
    return found


def check_ends(
    ended: Sequence[Ended], admitted: Iterable[str], leases: Sequence[Lease], most_attempts: int
) -> list[str]:
    """Every run has an end: the one that its last worker gave it, or ERROR after the most attempts."""
    found = {run.run: run for run in ended}
    wrong = [f"{id} is gone" for id in sorted(set(admitted) - found.keys())]
    wrong += [f"{id} is there, and nobody made it" for id in sorted(found.keys() - set(admitted))]
    of_runs = _by("run", leases)
    for run in ended:
        own = of_runs.get(run.run, [])
        if run.status in (PENDING, RUNNING) or not run.finished_at:
            wrong.append(f"{run.run} has no end")
            continue
        accepted = [lease for lease in own if lease.finished_at]
        if len(accepted) > 1:
            wrong.append(f"{run.run} was ended by {[lease.token for lease in accepted]}")
        if own and own[-1].attempt > run.attempt:
            wrong.append(f"{run.run} was claimed for attempt {own[-1].attempt} of {run.attempt}")
        if accepted:
            if (accepted[0].finish, accepted[0].finished_at) != (run.status, run.finished_at):
                wrong.append(f"{run.run}: the end of {accepted[0].token} was not kept")
        elif run.status == ERROR and "LeaseLapsed" in run.error:
            if run.attempt < most_attempts:
                wrong.append(f"{run.run} was given up after {run.attempt} attempts")
        elif not (own and own[-1].finish == run.status):
            wrong.append(f"{run.run} ended with {run.status}, which no worker of its last lease said")
    return wrong


def check_log(run: Ended, leases: Sequence[Lease]) -> list[str]:
    """The log of an ended run, given its leases: each event once, without a gap, in the order in which it was appended."""
    events, wrong = run.events, []
    if [event.sequence for event in events] != list(range(1, len(events) + 1)):
        wrong.append(f"{run.run}: the log has {[event.sequence for event in events]}")
    if run.last_sequence != len(events):
        wrong.append(f"{run.run}: {run.last_sequence} is the last event of {len(events)}")
    if any(after.position <= before.position for before, after in itertools.pairwise(events)):
        wrong.append(f"{run.run}: the positions do not grow")
    if [event.end for event in events] != [0] * (len(events) - 1) + [run.status]:
        wrong.append(f"{run.run}: the log ends with {[event.end for event in events[-3:]]}, not once with {run.status}")
    own = _by("run", leases).get(run.run, [])
    attempts = {event.attempt for event in events if not event.end} - {lease.attempt for lease in own}
    if attempts:
        wrong.append(f"{run.run}: attempts {attempts} appended events, and nobody claimed it for them")
    if [event.attempt for event in events] != sorted(event.attempt for event in events):
        wrong.append(f"{run.run}: an event of an attempt came after those of a later one")
    starts = [*(lease.since for lease in own[1:]), _NEVER]
    for lease, next_start in zip(own, starts, strict=False):
        wrong += _check_part(run, lease, next_start)
    return wrong


def _check_part(run: Ended, lease: Lease, next_start: int) -> list[str]:
    """What one lease left in the log."""
    there = [event for event in run.events if event.attempt == lease.attempt and not event.end]
    by_place = {event.sequence: event.data for event in there}
    sent = {first + place: data for first, texts in lease.sent.items() for place, data in enumerate(texts)}
    wrong = [
        f"{run.run}: event {place} is not the one that {lease.token} appended"
        for place, data in by_place.items()
        if sent.get(place) != data
    ]
    for first in lease.appended:
        if any(first + place not in by_place for place in range(len(lease.sent[first]))):
            wrong.append(f"{run.run}: the events from {first} of {lease.token} were acknowledged and are not there")
    wrong += [
        f"{run.run}: event {event.sequence} of {lease.token} came after the next claim"
        for event in there
        if event.created_at > next_start
    ]
    return wrong


def check_threads(statuses: Mapping[str, int], ended: Iterable[Ended]) -> list[str]:
    """A thread without a run in flight is as the run left it that ended last."""
    last: dict[str, Ended] = {}
    for run in ended:
        other = last.get(run.thread)
        if other is None or run.finished_at > other.finished_at:
            last[run.thread] = run
    return [
        f"{thread} is {statuses.get(thread)} after {run.run} ended with {run.status}"
        for thread, run in last.items()
        if statuses.get(thread) != LEFT[run.status]
    ]


@dataclass(frozen=True)
class Asked:
    """A run that was asked for, with the word of its strategy, and whether it was admitted."""

    run: str
    thread: str
    strategy: str
    was_admitted: bool


def check_admitted(asked: Sequence[Asked], kept: Iterable[str], named: Iterable[str]) -> list[str]:
    """What became of runs that were asked for at the same time, given those that are there and those that anything else names.

    Only REJECT refuses, and only where another was admitted; only what ROLLBACK undid is gone, and it has left nothing.
    """
    kept, named = set(kept), set(named)
    admitted: dict[str, list[Asked]] = defaultdict(list)
    for one in asked:
        if one.was_admitted:
            admitted[one.thread].append(one)
    wrong = [f"{id} is there, and nobody asked for it" for id in sorted(kept - {one.run for one in asked})]
    wrong += [f"{id} is gone, and something still names it" for id in sorted(named - kept)]
    for one in asked:
        others = [other for other in admitted[one.thread] if other is not one]
        if not one.was_admitted:
            if one.strategy != "REJECT" or not others:
                wrong.append(f"{one.run} ({one.strategy}) was refused beside {len(others)} others")
            if one.run in kept:
                wrong.append(f"{one.run} was refused and is there")
        elif one.run not in kept and not any(other.strategy == "ROLLBACK" for other in others):
            wrong.append(f"{one.run} is gone, and nothing was to undo it")
    return wrong


def check_ticks(
    expected: Iterable[tuple[str, int]],
    made: Iterable[tuple[str, int, str]],
    told: Iterable[tuple[str, int, str]],
    *,
    others_may_come: bool = False,
) -> list[str]:
    """One run, (cron, tick, run), of each expected (cron, tick), and of each that schedulers were told that it fired."""
    runs: dict[tuple[str, int], list[str]] = defaultdict(list)
    for cron, tick, run in made:
        runs[cron, tick].append(run)
    expected = set(expected)
    wrong = [f"{cron} at {tick} made no run" for cron, tick in sorted(expected - runs.keys())]
    wrong += [f"{cron} at {tick} made {ids}" for (cron, tick), ids in runs.items() if len(ids) > 1]
    if not others_may_come:
        wrong += [f"{cron} at {tick} made a run and was no tick" for cron, tick in sorted(runs.keys() - expected)]
    answers: dict[tuple[str, int], list[str]] = defaultdict(list)
    for cron, tick, run in told:
        answers[cron, tick].append(run)
    for (cron, tick), ids in answers.items():
        if len(ids) > 1:
            wrong.append(f"{cron} at {tick} fired {len(ids)} times")
        if not set(ids) <= set(runs[cron, tick]):
            wrong.append(f"{cron} at {tick} fired {ids}, which is not there")
    return wrong


def check_followed(seen: Sequence[Event], log: Sequence[Event], who: str) -> list[str]:
    """A follower has seen each event of a log once, in order."""
    if list(seen) == list(log):
        return []
    seen_places, places = ([event.position for event in events] for events in (seen, log))
    wrong = {
        "never saw": sorted(set(places) - set(seen_places)),
        "saw twice": sorted(place for place, count in Counter(seen_places).items() if count > 1),
        "saw what is not there": sorted(set(seen_places) - set(places)),
    }
    told = [f"{who} {what} {found}" for what, found in wrong.items() if found]
    return told or [f"{who} saw the events in another order, or with another content"]
