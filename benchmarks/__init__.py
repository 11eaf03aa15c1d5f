"""Closed-loop measurements of the service next to its peers, on one machine and in one run. ``python -m benchmarks --help``."""
