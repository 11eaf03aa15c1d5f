"""A run's results for people: a table, the ratios to the echo, and a plot."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

#: The least ratio of calls per second to the echo's, at so many callers and with the smallest payload.
TARGETS = {"read": 0.6, "write": 0.45}
TARGET_CALLERS = 16
#: The most memory of an idle server after the calls of the memory measurement, in MiB.
TARGET_MIB = 120

_COLUMNS = (
    ("operation", "method"),
    ("payload", "bytes"),
    ("callers", "callers"),
    ("peer", "peer"),
    ("calls_per_second", "calls/s"),
    ("ratio", "/echo"),
    ("p50_ms", "p50 ms"),
    ("p95_ms", "p95 ms"),
    ("p99_ms", "p99 ms"),
    ("server_cpu_us", "server us"),
    ("client_cpu_us", "client us"),
    ("database_cpu_us", "postgres us"),
    ("connections", "conns"),
)


def with_ratios(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures, each with its calls per second divided by the echo's of the same point."""
    echo = {_point(figure): figure["calls_per_second"] for figure in figures if figure["peer"] == "echo"}
    return [
        figure
        | {"ratio": round(figure["calls_per_second"] / echo[_point(figure)], 2) if _point(figure) in echo else ""}
        for figure in figures
    ]


def _point(figure: dict[str, Any]) -> tuple[Any, ...]:
    return figure["operation"], figure["payload"], figure["callers"]


def as_text(results: dict[str, Any]) -> str:
    """Everything of a run, as Markdown."""
    plan, load = results["plan"], results["load_average"]
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in results["machine"].items())
    lines = [
        f"# {results['date']}",
        "",
        f"Machine: {machine}.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".",
        f"Medians of {plan['repeats']} repeats of {plan['seconds']:g} s, the peers in turn; log level {plan['log_level']}.",
        f"Load average before {load['before']}, after {load['after']}."
        + (
            " **Other programs used the machine: take the ratios, and those with care.**"
            if load["before"] > 0.3
            else ""
        ),
        "",
        *_summary(results),
        "",
        *_table([name for _, name in _COLUMNS], [_cells(figure) for figure in with_ratios(results["figures"])]),
    ]
    return "\n".join(lines) + "\n"


def _cells(figure: dict[str, Any]) -> list[str]:
    return [str(figure[key]) for key, _ in _COLUMNS]


def _summary(results: dict[str, Any]) -> list[str]:
    rows = []
    for figure in with_ratios(results["figures"]):
        target = TARGETS.get(figure["kind"])
        judged = (
            figure["peer"] == "postgres" and figure["callers"] == TARGET_CALLERS and target and figure["ratio"] != ""
        )
        if judged:
            verdict = "reached" if figure["ratio"] >= target else "missed"
            what = f"{figure['operation']}, {figure['payload']} bytes, {TARGET_CALLERS} callers, of the echo's calls/s"
            rows.append([what, f"{figure['ratio']:.2f}", f">= {target}", verdict])
    if results["memory"]:
        last = results["memory"][-1]
        what = f"resident memory in MiB after {last['calls']} calls"
        rows.append(
            [
                what,
                str(last["resident_mib"]),
                f"< {TARGET_MIB}",
                "reached" if last["resident_mib"] < TARGET_MIB else "missed",
            ]
        )
    if not rows:
        return []
    memory = ", ".join(f"{point['calls']}: {point['resident_mib']}" for point in results["memory"])
    table = _table(["what, on Postgres", "measured", "to reach", ""], rows)
    return table + (["", f"Resident memory in MiB by calls made: {memory}."] if memory else [])


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
    columns = 2 * len(plan["payloads"]) if len(plan["operations"]) > 1 else len(plan["payloads"])
    height = -(-len(panels) // columns)
    drawing, axes = pyplot.subplots(
        height, columns, figsize=(4 * columns, 3 * height), squeeze=False, layout="constrained"
    )
    for place in axes.flat[len(panels) :]:
        place.remove()
    for (name, payload), place in zip(panels, axes.flat, strict=False):
        here = [figure for figure in figures if (figure["operation"], figure["payload"]) == (name, payload)]
        for peer in dict.fromkeys(figure["peer"] for figure in here):
            points = [figure for figure in here if figure["peer"] == peer]
            place.plot(
                [str(p["callers"]) for p in points], [p["calls_per_second"] for p in points], marker="o", label=peer
            )
        place.set_title(f"{name}, {payload // 1024} KiB", fontsize=10)
        place.set_ylim(bottom=0)
        place.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    drawing.supxlabel("callers")
    drawing.supylabel("calls per second")
    drawing.savefig(path, dpi=100)
    pyplot.close(drawing)
    return True
