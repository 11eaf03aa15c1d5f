"""The checks of the queue's histories take right ones and refuse wrong ones: a check that refuses nothing shows nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.queue_histories import (
    BUSY,
    ERROR,
    IDLE,
    RUNNING,
    SUCCESS,
    Asked,
    Ended,
    Event,
    Lease,
    check_admitted,
    check_ends,
    check_followed,
    check_leases,
    check_log,
    check_threads,
    check_ticks,
    leases_of,
)
from tests.faults.queue_soak import Sample, growth

ATTEMPTS = 3


def claimed(run: str = "r", token: int = 1, attempt: int = 1, since: int = 0, **more: Any) -> dict[str, Any]:
    """A claim of a run for 100 us."""
    entry = {"what": "claimed", "run": run, "thread": "t", "worker": f"w{token}", "token": token, "attempt": attempt}
    return {**entry, "since": since, "lapses": since + 100, **more}


def entry(what: str, token: int = 1, run: str = "r", **more: Any) -> dict[str, Any]:
    return {"what": what, "run": run, "token": token, **more}


def ended(token: int, at: int, run: str = "r", status: int = SUCCESS) -> list[dict[str, Any]]:
    return [entry("finishing", token, run, status=status), entry("finished", token, run, at=at)]


#: A lease that lapsed, one that was given back, and the one that ended the run; then another run of the thread.
RIGHT = [
    claimed(),
    entry("beating"),
    entry("beat", at=50, lapses=150, again=False),
    claimed(token=2, attempt=2, since=150),
    entry("releasing", 2),
    entry("released", 2),
    claimed(token=4, attempt=3, since=160),
    entry("appending", 4, first=1, data=["a", "b"]),
    entry("appended", 4, first=1),
    *ended(4, 200),
    claimed("s", 5, since=200),
    *ended(5, 300, "s"),
]


def test_a_right_history() -> None:
    leases = leases_of(RIGHT)
    assert [lease.token for lease in leases] == [1, 2, 4, 5]
    assert check_leases(leases) == []


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([claimed(), claimed(token=2, attempt=2, since=99)], "before the lease of w1"),
        (
            [claimed(), entry("beat", at=50, lapses=150, again=False), claimed(token=2, attempt=2, since=149)],
            "1 us before",
        ),
        ([claimed(), claimed("s", 2, since=99)], "before the lease of w1"),
        # Longer than one that came after it.
        ([claimed(lapses=900), claimed("s", 2, since=900), claimed("u", 3, since=950)], "before the lease of w2"),
        ([claimed(), *ended(1, 90), claimed("s", 2, since=89)], "before the lease of w1"),
        ([claimed(token=2), claimed(token=1, attempt=2, since=100)], "token 1 came after 2"),
        ([claimed(), claimed(token=2, attempt=1, since=100)], "attempt 1 came after 1"),
        ([claimed(), claimed("s", since=100)], "token 1 was given 2 times"),
        ([claimed(), *ended(1, 50), claimed(token=2, attempt=2, since=100)], "though 1 had ended it"),
        ([claimed(), *ended(1, 101)], "1 us after its lease"),
        (
            [claimed(), entry("beating"), entry("beat", at=50, lapses=150, again=False), *ended(1, 151)],
            "1 us after its lease",
        ),
        (
            [claimed(), entry("beating"), entry("refused", call="HeartbeatRun", again=False), *ended(1, 101)],
            "1 us after its lease",
        ),
        # A zombie: its lease was over, another had the run, and its end was accepted all the same.
        ([claimed(), claimed(token=2, attempt=2, since=110), *ended(1, 120)], "before the lease of w1"),
        # A heartbeat that a replaced lease should not have got.
        (
            [claimed(), claimed(token=2, attempt=2, since=110), entry("beat", at=120, lapses=220, again=False)],
            "before the lease of w1",
        ),
        # What was refused leaves the lease as it was.
        (
            [
                claimed(),
                entry("finishing", status=SUCCESS),
                entry("refused", call="FinishRun", again=False),
                claimed(token=2, attempt=2, since=90),
            ],
            "before the lease of w1",
        ),
    ],
)
def test_wrong_leases(entries: list[dict[str, Any]], said: str) -> None:
    wrong = check_leases(leases_of(entries))
    assert any(said in text for text in wrong), wrong


@pytest.mark.parametrize(
    "entries",
    [
        # Nobody knows when the end was, or whether there was one.
        [claimed(), entry("finishing", status=SUCCESS), claimed("s", 2, since=10)],
        [claimed(), entry("releasing"), claimed(token=2, attempt=2, since=10)],
        # The heartbeat whose answer was lost may have made it longer.
        [claimed(), entry("beating"), *ended(1, 180)],
        [claimed(), entry("beating"), entry("beat", at=50, lapses=150, again=True), *ended(1, 180)],
        [claimed(), claimed(token=2, attempt=2, since=100)],
    ],
)
def test_what_may_have_been(entries: list[dict[str, Any]]) -> None:
    assert check_leases(leases_of(entries)) == []


def test_a_token_of_a_run_is_claimed_once() -> None:
    with pytest.raises(AssertionError, match="claimed twice"):
        leases_of([claimed(), claimed(attempt=2)])


def test_an_unknown_entry() -> None:
    with pytest.raises(AssertionError, match="no entry"):
        leases_of([claimed(), entry("danced")])


def run_of(*events: Event, **more: Any) -> Ended:
    """The run of RIGHT that its third attempt ended."""
    return replace(Ended("r", "t", SUCCESS, 3, 200, len(events), "", events), **more)


LOG = (
    Event(1, 10, "a", 3, 170),
    Event(2, 12, "b", 3, 180),
    Event(3, 15, "", 3, 200, SUCCESS),
)
OTHER = Ended("s", "t", SUCCESS, 1, 300, 1, "", (Event(1, 20, "", 1, 300, SUCCESS),))
GIVEN_UP = run_of(status=ERROR, error='{"error": "LeaseLapsed"}')


def test_right_ends() -> None:
    leases = leases_of(RIGHT)
    run = run_of(*LOG)
    assert check_ends([run, OTHER], ["r", "s"], leases, ATTEMPTS) == []
    assert check_log(run, [lease for lease in leases if lease.run == "r"]) == []
    assert check_threads({"t": IDLE}, [run, OTHER]) == []
    assert check_ends([GIVEN_UP], ["r"], [], ATTEMPTS) == []
    # The answer to the end was lost.
    unknown = leases_of([claimed(attempt=3), entry("finishing", status=SUCCESS)])
    assert check_ends([run], ["r"], unknown, ATTEMPTS) == []


@pytest.mark.parametrize(
    ("found", "admitted", "said"),
    [
        ([run_of()], ["r", "s"], "s is gone"),
        ([run_of(), OTHER], ["r"], "nobody made it"),
        ([run_of(status=RUNNING)], ["r"], "has no end"),
        ([run_of(finished_at=0)], ["r"], "has no end"),
        ([run_of(attempt=2)], ["r"], "attempt 3 of 2"),
        ([run_of(status=ERROR)], ["r"], "was not kept"),
        ([run_of(finished_at=199)], ["r"], "was not kept"),
    ],
)
def test_wrong_ends(found: list[Ended], admitted: list[str], said: str) -> None:
    wrong = check_ends(found, admitted, leases_of(RIGHT), ATTEMPTS)
    assert any(said in text for text in wrong), wrong


@pytest.mark.parametrize(
    ("entries", "run", "said"),
    [
        ([], replace(GIVEN_UP, attempt=2), "given up after 2"),
        ([], run_of(), "no worker of its last lease said"),
        ([claimed(), entry("finishing", status=ERROR)], run_of(), "no worker of its last lease said"),
        ([claimed(), *ended(1, 50), claimed(token=2, attempt=2, since=100), *ended(2, 200)], run_of(), "was ended by"),
    ],
)
def test_wrong_ends_of_other_leases(entries: list[dict[str, Any]], run: Ended, said: str) -> None:
    wrong = check_ends([run], ["r"], leases_of(entries), ATTEMPTS)
    assert any(said in text for text in wrong), wrong


def _changed(place: int, **fields: Any) -> tuple[Event, ...]:
    return tuple(replace(event, **fields) if number == place else event for number, event in enumerate(LOG))


@pytest.mark.parametrize(
    ("events", "said"),
    [
        (LOG[1:], "the log has [2, 3]"),
        ((LOG[0], LOG[0], *LOG[1:]), "the log has [1, 1, 2, 3]"),
        ((LOG[1], LOG[0], LOG[2]), "the log has [2, 1, 3]"),
        ((LOG[0], replace(LOG[2], sequence=2)), "acknowledged and are not there"),
        (LOG[:2], "the log ends with [0, 0]"),
        (_changed(2, end=ERROR), "not once with 3"),
        (_changed(1, end=SUCCESS), "not once with 3"),
        (_changed(1, position=10), "positions do not grow"),
        (_changed(0, data="z"), "is not the one that 4 appended"),
        (_changed(1, attempt=7), "attempts {7}"),
        (_changed(0, attempt=5), "came after those of a later one"),
        ((), "the log ends with []"),
    ],
)
def test_wrong_logs(events: tuple[Event, ...], said: str) -> None:
    leases = [lease for lease in leases_of(RIGHT) if lease.run == "r"]
    wrong = check_log(run_of(*events), leases)
    assert any(said in text for text in wrong), wrong


def test_a_log_that_its_run_does_not_know() -> None:
    assert "r: 4 is the last event of 3" in check_log(run_of(*LOG, last_sequence=4), [])


def test_an_event_of_a_zombie() -> None:
    entries = [
        claimed(),
        entry("appending", first=1, data=["a"]),
        entry("appended", first=1),
        claimed(token=2, attempt=2, since=110),
        *ended(2, 200),
    ]
    leases: list[Lease] = leases_of(entries)
    log = (Event(1, 1, "a", 1, 120), Event(2, 2, "", 2, 200, SUCCESS))
    assert check_log(run_of(*log), leases) == ["r: event 1 of 1 came after the next claim"]
    assert check_log(run_of(replace(log[0], created_at=90), log[1]), leases) == []


def test_threads() -> None:
    later = replace(OTHER, status=ERROR)
    assert check_threads({"t": BUSY}, [OTHER]) == ["t is 2 after s ended with 3"]
    assert check_threads({}, [OTHER]) == ["t is None after s ended with 3"]
    # The run that ended last counts, wherever it is in the list.
    assert check_threads({"t": IDLE}, [later, run_of()]) == ["t is 1 after s ended with 4"]


ASKED = [
    Asked("a", "t", "REJECT", True),
    Asked("b", "t", "REJECT", False),
    Asked("c", "t", "ENQUEUE", True),
    Asked("d", "u", "ENQUEUE", True),
    Asked("e", "u", "ROLLBACK", True),
]


@pytest.mark.parametrize(
    ("asked", "kept", "named", "said"),
    [
        (ASKED, "acdex", "", "x is there, and nobody asked for it"),
        (ASKED, "acd", "", "e is gone, and nothing was to undo it"),
        (ASKED, "ade", "", "c is gone, and nothing was to undo it"),
        (ASKED, "ace", "acd", "d is gone, and something still names it"),
        (ASKED, "abce", "", "b was refused and is there"),
        ([ASKED[1]], "", "", "b (REJECT) was refused beside 0 others"),
        ([replace(ASKED[1], strategy="ENQUEUE"), ASKED[0]], "a", "", "b (ENQUEUE) was refused beside 1 others"),
    ],
)
def test_wrong_admissions(asked: list[Asked], kept: str, named: str, said: str) -> None:
    assert said in check_admitted(asked, kept, named)


def test_right_admissions() -> None:
    assert check_admitted(ASKED, "acde", "acde") == []
    assert check_admitted(ASKED, "ace", "ae") == []


TICKS = [("c", 1), ("c", 2)]
MADE = [("c", 1, "r1"), ("c", 2, "r2")]


@pytest.mark.parametrize(
    ("made", "told", "said"),
    [
        (MADE[:1], [], "c at 2 made no run"),
        ([*MADE, ("c", 2, "r3")], [], "c at 2 made ['r2', 'r3']"),
        ([*MADE, ("c", 3, "r3")], [], "c at 3 made a run and was no tick"),
        (MADE, [MADE[0], MADE[0]], "c at 1 fired 2 times"),
        (MADE, [("c", 1, "r9")], "which is not there"),
    ],
)
def test_wrong_ticks(made: list[tuple[str, int, str]], told: list[tuple[str, int, str]], said: str) -> None:
    wrong = check_ticks(TICKS, made, told)
    assert any(said in text for text in wrong), wrong


def test_right_ticks() -> None:
    assert check_ticks(TICKS, MADE, MADE[:1]) == []
    assert check_ticks(TICKS, [*MADE, ("c", 3, "r3")], [], others_may_come=True) == []


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (LOG[:2], "w never saw [15]"),
        ((LOG[0], LOG[0], *LOG[1:]), "w saw twice [10]"),
        ((*LOG, Event(4, 16, "x", 3)), "w saw what is not there [16]"),
        ((LOG[1], LOG[0], LOG[2]), "w saw the events in another order, or with another content"),
        (_changed(0, data="z"), "w saw the events in another order, or with another content"),
    ],
)
def test_followers(seen: tuple[Event, ...], said: str) -> None:
    assert check_followed(LOG, LOG, "w") == []
    assert check_followed(seen, LOG, "w") == [said]


@pytest.mark.parametrize(
    ("sizes", "rows", "least", "most"),
    [
        ((10, 40, 40, 40), (1, 9, 9, 9), 0.99, 1.01),
        # Dead rows that nothing clears away.
        ((10, 40, 60, 80), (1, 9, 9, 9), 1.33, 1.34),
        # As much more as there are more rows.
        ((10, 40, 60, 80), (1, 9, 15, 20), 0.99, 1.01),
        ((10, 40, 40, 20), (1, 9, 9, 4), 0.49, 0.51),
    ],
)
def test_what_tables_come_to_use(sizes: tuple[int, ...], rows: tuple[int, ...], least: float, most: float) -> None:
    samples = [
        Sample(second, 0, count, 0, size, 0, 0, 0, 0, 0, 0)
        for second, (size, count) in enumerate(zip(sizes, rows, strict=True))
    ]
    assert least < growth(samples) < most
    with pytest.raises(ValueError, match="four samples"):
        growth(samples[:3])
