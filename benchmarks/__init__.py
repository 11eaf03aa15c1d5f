"""Closed-loop measurements of the service next to its peers, on one machine and in one run. ``python -m benchmarks --help``."""

import os

# Of the load generator, which starts processes: grpc would complain about each of them.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
