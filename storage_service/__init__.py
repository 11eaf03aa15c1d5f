"""The storage service for agent runtimes: assistants, threads, runs, long-term memory and crons over gRPC."""

from __future__ import annotations

__version__ = "0.1.0"
