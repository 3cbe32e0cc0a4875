"""What every test shares: how hypothesis behaves, and gRPC imported as the agent imports it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before any test imports gRPC, or its core writes what it likes to stderr for as long as the process lives.
from otelwp_agent.transport import grpc_runtime  # noqa: F401

# Machines differ and share cores: a slow example is not a wrong one. CI draws the same examples each time, so that a
# failure there can be had again here.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("house"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "house")
