"""A run's results for people: a table, ratios, and a plot."""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import Any

from benchmarks import targets

# What a method's other peers are compared with: a method has one of them.
_REFERENCES = ("echo", "AsyncPostgresSaver")
_COLUMNS = (
    ("operation", "method"),
    ("payload", "bytes"),
    ("callers", "callers"),
    ("peer", "peer"),
    ("calls_per_second", "calls/s"),
    ("ratio", "ratio"),
    ("p50_ms", "p50 ms"),
    ("p95_ms", "p95 ms"),
    ("p99_ms", "p99 ms"),
    ("server_cpu_us", "server us"),
    ("client_cpu_us", "client us"),
    ("database_cpu_us", "postgres us"),
    ("connections", "conns"),
    ("others_cores", "others"),
)


def compared(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures, each with its ratio to the reference of the same point, where the run has it."""
    references = {_point(figure): figure for figure in figures if figure["peer"] in _REFERENCES}
    found = []
    for figure in figures:
        other = references.get(_point(figure))
        ratio = "" if other is None else f"{figure['calls_per_second'] / other['calls_per_second']:.2f}"
        found.append(figure | {"ratio": ratio})
    return found


def _point(figure: dict[str, Any]) -> tuple[Any, ...]:
    return figure["operation"], figure["payload"], figure["callers"]


def as_text(results: dict[str, Any]) -> str:
    """Everything of a run, as Markdown."""
    plan = results["plan"]
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results["machine"].items())
    lines = [
        f"# {results['date']}",
        "",
        f"Machine: {machine}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
        f"Medians of {plan['repeats']} repeats of {plan['seconds']:g} s, the peers in turn; log level {plan['log_level']}.",
        *_disturbance(results),
        "",
        *_summary(results),
        "",
        *_table([name for _, name in _COLUMNS], [_cells(figure) for figure in compared(results["figures"])]),
    ]
    return "\n".join(lines) + "\n"


def _cells(figure: dict[str, Any]) -> list[str]:
    return [str(figure[key]) for key, _ in _COLUMNS]


def _disturbance(results: dict[str, Any]) -> list[str]:
    """What other programs did meanwhile, in cores: a tenth of one is the machine's own house-keeping."""
    load = results["load_average"]
    others = statistics.mean(figure["others_cores"] for figure in results["figures"]) if results["figures"] else 0.0
    lines = [f"Other programs used {others:.2f} cores. Load average before {load['before']}, after {load['after']}."]
    if others > 0.15:
        lines.append("**The machine was not quiet: take the ratios, not the figures, and those with care.**")
    return lines


def _summary(results: dict[str, Any]) -> list[str]:
    rows = targets.rows(results)
    if not rows:
        return []
    memory = ", ".join(f"{point['calls']}: {point['resident_mib']}" for point in results["memory"])
    table = _table(["figures to reach", "measured", "to reach", ""], rows)
    return table + (
        ["", f"Resident memory in MiB after the calls of the table and so many more: {memory}."] if memory else []
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def plot(results: dict[str, Any], path: Path) -> bool:
    """Draw calls per second by callers, a panel for each operation and payload. False without matplotlib."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        return False
    matplotlib.use("agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    plan, figures = results["plan"], results["figures"]
    panels = [(name, payload) for name in plan["operations"] for payload in plan["payloads"]]
    columns = min(len(panels), 4)
    height = -(-len(panels) // columns)
    size = (4 * columns, 3 * height)
    drawing, axes = pyplot.subplots(height, columns, figsize=size, squeeze=False, layout="constrained")
    for place in axes.flat[len(panels) :]:
        place.remove()
    names = dict.fromkeys(figure["peer"] for figure in figures)
    colours = {name: f"C{number}" for number, name in enumerate(names)}
    bars: dict[str, Any] = {}
    for (name, payload), place in zip(panels, axes.flat, strict=False):
        here = [figure for figure in figures if (figure["operation"], figure["payload"]) == (name, payload)]
        bars |= _draw(place, here, colours)
        place.set_title(f"{name}, {payload // 1024} KiB", fontsize=10)
    drawing.legend(list(bars.values()), list(bars), loc="outside upper center", ncols=len(bars), fontsize=8)
    drawing.supxlabel("callers")
    drawing.supylabel("calls per second")
    drawing.savefig(path, dpi=100)
    pyplot.close(drawing)
    return True


def _draw(place: Any, figures: list[dict[str, Any]], colours: dict[str, str]) -> dict[str, Any]:
    """Draw a panel: for each number of callers a bar of each peer, with a line from its slowest repeat to its fastest."""
    names = list(dict.fromkeys(figure["peer"] for figure in figures))
    callers = list(dict.fromkeys(figure["callers"] for figure in figures))
    width = 0.8 / len(names)
    bars = {}
    for number, name in enumerate(names):
        points = [figure for figure in figures if figure["peer"] == name]
        rates = [point["calls_per_second"] for point in points]
        spread = [
            [rate - point["slowest_repeat"] for rate, point in zip(rates, points, strict=True)],
            [point["fastest_repeat"] - rate for rate, point in zip(rates, points, strict=True)],
        ]
        at = [callers.index(point["callers"]) + (number - (len(names) - 1) / 2) * width for point in points]
        bars[name] = place.bar(at, rates, width, yerr=spread, color=colours[name], error_kw={"lw": 0.8})
    place.set_xticks(range(len(callers)), [str(number) for number in callers])
    place.grid(alpha=0.3, axis="y")
    place.set_axisbelow(True)
    return bars
