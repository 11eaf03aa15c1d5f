"""What the benchmarks make of their measurements."""

from __future__ import annotations

from typing import Any

from benchmarks import targets
from benchmarks.load import Loop, measured
from benchmarks.operations import Rows


def _figure(peer: str, rate: int, *, kind: str = "read", callers: int = 64, cpu: int = 100) -> dict[str, Any]:
    point = {"operation": "Get" if kind == "read" else "Put", "kind": kind, "payload": 1024, "callers": callers}
    return point | {"peer": peer, "calls_per_second": rate, "server_cpu_us": cpu}


def _rows(*figures: dict[str, Any], cores: int = 8, memory: float = 0) -> list[list[str]]:
    points = [{"calls": 10, "resident_mib": memory}] if memory else []
    return targets.rows({"figures": list(figures), "machine": {"cores": cores}, "memory": points})


def test_clients_at_the_same_time_are_one_load() -> None:
    load = measured([Loop([0.1, 0.3], 2.0, 0.5), Loop([0.2, 0.4], 3.0, 0.25)])
    assert (load.calls, load.seconds, load.p50, load.p99, load.client_cpu) == (4, 3.0, 0.2, 0.4, 0.75)


def test_clients_begin_at_other_rows() -> None:
    rows = Rows.of_size(1024)
    turned = rows.turned(0.5)
    assert (turned.keys[0], turned.threads[0]) == (rows.keys[500], rows.threads[500])
    assert sorted(turned.keys) == sorted(rows.keys)
    assert rows.turned(0) == rows


def test_rates_and_cpu() -> None:
    found = _rows(
        _figure("echo", 4000),
        _figure("exchange postgres", 4900, cpu=149),
        _figure("echo", 4000, kind="write"),
        _figure("exchange postgres", 3900, kind="write", cpu=200),
    )
    assert [row[1:] for row in found] == [
        ["1.23", ">= 1.2", "reached"],
        ["149", "< 150", "reached"],
        ["0.97", ">= 1", "missed"],
        ["200", "< 200", "missed"],
    ]
    plain = _rows(_figure("echo", 1000, callers=16), _figure("postgres", 590, callers=16, cpu=240))
    assert [row[1:] for row in plain] == [["0.59", ">= 0.6", "missed"], ["140", "< 150", "reached"]]


def test_what_a_run_has_not_is_not_judged() -> None:
    assert _rows(_figure("exchange postgres", 1, callers=8), _figure("exchange memory", 1), _figure("echo", 1)) == []
    (row,) = _rows(memory=119.5)
    assert row[1:] == ["119.5", "< 120", "reached"]


def test_two_workers_need_cores() -> None:
    figures = (_figure("postgres, 1 worker", 1000), _figure("postgres, 2 workers", 1100))
    assert _rows(*figures, cores=8)[0][-1] == "missed"
    assert _rows(*figures, cores=2)[0][-1].startswith("not to be seen on 2 cores")
    assert _rows(_figure("postgres, 1 worker", 1000), _figure("postgres, 2 workers", 1700), cores=2)[0][-1] == "reached"
