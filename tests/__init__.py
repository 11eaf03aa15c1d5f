"""The suite. It starts processes as other users, which forks: gRPC's handlers for that have no part in it, and can crash the child."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
