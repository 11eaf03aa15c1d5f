from __future__ import annotations

from tests.faults.servers import serve

__all__ = ["serve"]
