"""What ``top`` makes of what a server says: figures, text that fits a terminal, JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from agentstorage.v1 import runs_pb2, server_pb2
from storage_service.terminal import span, width
from storage_service.top_view import MOST_METHODS, Look, as_json, figures, lines

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def method(name: str, calls: int, failed: int, seconds: float, longest: float) -> server_pb2.MethodFigures:
    return server_pb2.MethodFigures(
        method=f"agentstorage.v1.{name}", calls=calls, failed=failed, seconds=seconds, longest_seconds=longest
    )


def look(seconds: float, claims: int, *methods: server_pb2.MethodFigures) -> Look:
    info = server_pb2.GetServerInfoResponse(
        version="1.2.3",
        backend="postgres",
        schema_revision=12,
        pool=server_pb2.PoolFigures(size=5, max_size=10, available=3, waiting=2),
        methods=methods,
    )
    counts = {"PENDING": 7, "SUCCESS": 4, "UNSPECIFIED": 1}
    runs = [runs_pb2.RunsOfStatus(status=f"RUN_STATUS_{word}", count=count) for word, count in counts.items()]
    stats = runs_pb2.GetRunStatsResponse(
        runs=runs, due=5, delayed=2, leased=1, oldest_wait_seconds=90, crons_due=3, claims=claims
    )
    return Look(seconds, NOW, info, stats)


BEFORE = look(100, 50, method("ThreadService/GetThread", 100, 1, 10, 2), method("RunService/ClaimRuns", 10, 0, 600, 60))
AFTER = look(
    104,
    70,
    method("ThreadService/GetThread", 140, 3, 11, 2),
    method("RunService/ClaimRuns", 12, 0, 660, 60),
    method("StoreService/PutItem", 8, 0, 3, 1),
)


def test_what_two_looks_tell() -> None:
    shown = as_json(figures(AFTER, BEFORE), "here:1", None)
    assert shown["queue"]["claims_per_second"] == 5
    assert shown["calls_per_second"] == 12.5
    assert shown["runs"] == {
        **dict.fromkeys(("running", "error", "timeout", "interrupted"), 0),
        **{"pending": 7, "success": 4, "other": 1},
    }
    by_name = {each["method"].rpartition("/")[2]: each for each in shown["methods"]}
    # By what they took of late; those that wait come behind, and have no share.
    assert list(by_name) == ["PutItem", "GetThread", "ClaimRuns"]
    assert [by_name["GetThread"][name] for name in ("calls_per_second", "mean_seconds", "share")] == [10, 0.025, 0.25]
    assert [by_name["PutItem"][name] for name in ("calls", "calls_per_second", "share")] == [8, 2, 0.75]
    assert [by_name["ClaimRuns"][name] for name in ("mean_seconds", "share", "waits")] == [30, None, True]
    assert json.loads(json.dumps(shown)) == shown


def test_a_first_look_has_no_rate() -> None:
    shown = as_json(figures(AFTER, None), "here:1", None)
    assert (shown["queue"]["claims_per_second"], shown["calls_per_second"]) == (None, None)
    assert {each["method"]: each["calls_per_second"] for each in shown["methods"]} == {
        f"agentstorage.v1.{name}": None
        for name in ("ThreadService/GetThread", "RunService/ClaimRuns", "StoreService/PutItem")
    }


@pytest.mark.parametrize(
    "changed",
    [
        # A method less, a call less, a shorter longest: another process answers, or the server has started again.
        (method("RunService/ClaimRuns", 12, 0, 660, 60),),
        (method("ThreadService/GetThread", 99, 1, 11, 2), method("RunService/ClaimRuns", 12, 0, 660, 60)),
        (method("ThreadService/GetThread", 200, 1, 11, 1), method("RunService/ClaimRuns", 12, 0, 660, 60)),
    ],
)
def test_another_process_is_not_compared(changed: tuple[server_pb2.MethodFigures, ...]) -> None:
    shown = as_json(figures(look(104, 70, *changed), BEFORE), "here:1", None)
    assert shown["calls_per_second"] is None
    # The database is the same.
    assert shown["queue"]["claims_per_second"] == 5


def test_the_text() -> None:
    text = lines(figures(AFTER, BEFORE), "here:1", "alice", 79, None)
    assert text == [
        "03:04:05 UTC  here:1: storage-service 1.2.3, postgres, schema 12",
        "          runs and crons of alice",
        "runs      pending 7  running 0  success 4  error 0  timeout 0  interrupted 0",
        "          other 1",
        "queue     due 5  delayed 2  leased 1  oldest waits 1.5 min",
        "          claims 5/s, of all owners",
        "crons     due 3  (fired by STORAGE_CRON_SECONDS or FireDueCrons)",
        "pool      5 of 10 connections  3 free  2 calls wait",
        "calls     12.5/s  160 since the start  3 of them failed",
        "",
        "method     calls/s    mean  share  longest  failed",
        "PutItem          2  375 ms    75%    1.0 s       0",
        "GetThread       10   25 ms    25%    2.0 s       3",
        "ClaimRuns      0.5    30 s  waits  1.0 min       0",
        "(longest and failed are since the start)",
    ]


@pytest.mark.parametrize("columns", [79, 40, 12])
@pytest.mark.parametrize("rows", [24, 10, 3, None])
def test_it_fits(columns: int, rows: int | None) -> None:
    """Also where everything is as large as can be, and a server of others says what it likes."""
    evil = "\x1b[2J\u202e\n\u4e2d\u6587" * 30
    most = 2**63 - 1
    seen = look(
        104,
        most,
        *(method(f"S/{'GetDeltaChannelHistory'}{number}", most, most, 1e12, 1e9) for number in range(60)),
        method(evil, 1, 1, 1, 1),
    )
    assert seen.info is not None
    assert seen.stats is not None
    seen.info.version, seen.info.backend = evil, evil
    seen.stats.due = seen.stats.delayed = seen.stats.leased = most
    for each in seen.stats.runs:
        each.count = most
    for shown in (
        figures(seen, None),
        figures(seen, BEFORE),
        figures(Look(1, NOW, problem=evil), BEFORE),
        figures(Look(105, NOW, seen.info, None, refused=evil), seen),
    ):
        text = lines(shown, evil, evil, columns, rows)
        assert text
        assert len(text) <= (rows or MOST_METHODS + 60)
        assert max(map(width, text)) <= columns
        assert all(line.isprintable() for line in text)
        assert json.dumps(as_json(shown, evil, evil)).isprintable()


def test_the_methods_are_bounded() -> None:
    many = [method(f"ThreadService/M{number}", 1, 0, number + 1, 1) for number in range(40)]
    text = lines(figures(look(104, 1, *many), None), "here:1", None, 79, None)
    assert [line.split()[0] for line in text if line.startswith("M")] == [f"M{number}" for number in range(39, 27, -1)]
    assert text[-1] == "(all since the start; 28 more methods)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.00042, "0.4 ms"),
        (0.0123, "12 ms"),
        (1.53, "1.5 s"),
        (48, "48 s"),
        (720, "12 min"),
        (7000, "1.9 h"),
        (200_000, "2.3 d"),
        (-5, "-5.0 s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
