"""The command ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import profile, report
from benchmarks.run import OPERATIONS, PEERS, Plan, measure

_RESULTS = Path(__file__).parent / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the service next to its peers.")
    parser.add_argument(
        "--quick", action="store_true", help="one payload, 16 callers, short repeats: rough figures soon"
    )
    parser.add_argument("--only", metavar="NAMES", help=f"operations with commas between: {', '.join(OPERATIONS)}")
    parser.add_argument("--peers", metavar="NAMES", help=f"peers with commas between: {', '.join(PEERS)}")
    parser.add_argument("--payloads", metavar="BYTES", help="sizes of the document with commas between: 1024,32768")
    parser.add_argument("--callers", metavar="NUMBERS", help="calls in flight with commas between: 1,8,16,64")
    parser.add_argument("--seconds", type=float, help="length of a repeat")
    parser.add_argument("--repeats", type=int, help="repeats of which the median counts")
    parser.add_argument("--memory-calls", type=int, help="calls that the memory is measured over; 0 for none")
    parser.add_argument("--log-level", help="of the service: INFO, its default, writes a line for each call")
    parser.add_argument("--out", type=Path, metavar="DIR", default=_RESULTS, help="where the results go")
    parser.add_argument("--name", help="the short name in the results' file names; quick, partial or full by default")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing; print the table of kept results")
    parser.add_argument("--profile", metavar="OPERATION", choices=OPERATIONS, help="show where the server's time goes")
    parser.add_argument(
        "--counting", action="store_true", help="with --profile: count every call (slow) instead of sampling"
    )
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    plan = Plan()
    if arguments.quick:
        plan = replace(plan, payloads=(1024,), callers=(16,), seconds=0.7, memory_calls=10_000)
    changes: dict[str, Any] = {
        "operations": _names(arguments.only, OPERATIONS),
        "peers": _names(arguments.peers, PEERS),
        "payloads": _numbers(arguments.payloads),
        "callers": _numbers(arguments.callers),
        "seconds": arguments.seconds,
        "repeats": arguments.repeats,
        "memory_calls": arguments.memory_calls,
        "log_level": arguments.log_level,
    }
    return replace(plan, **{name: value for name, value in changes.items() if value is not None})


def _names(text: str | None, known: Any) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(text.split(","))
    for name in names:
        if name not in known:
            sys.exit(f"{name} is none of {', '.join(known)}")
    return names


def _numbers(text: str | None) -> tuple[int, ...] | None:
    return None if text is None else tuple(int(number) for number in text.split(","))


def main() -> None:
    """Measure, keep the results and print them; or print kept ones; or profile."""
    arguments = _arguments()
    if arguments.render:
        print(report.as_text(json.loads(arguments.render.read_text())), end="")
        return
    plan = _plan(arguments)
    if arguments.profile:
        uvloop.run(profile.show(arguments.profile, plan, counting=arguments.counting))
        return
    results = uvloop.run(measure(plan))
    name = arguments.name or (
        "quick" if arguments.quick else "full" if plan.operations == tuple(OPERATIONS) else "partial"
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / f"{results['date'][:10]}-{name}.json"
    kept.write_text(json.dumps(results, indent=1) + "\n")
    text = report.as_text(results)
    kept.with_suffix(".txt").write_text(text)
    print(text, end="")
    if not report.plot(results, kept.with_suffix(".png")):
        print("no plot: matplotlib is not installed", file=sys.stderr)
    print(f"kept in {kept} and next to it", file=sys.stderr)


main()
