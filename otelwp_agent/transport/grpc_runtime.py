"""grpcio, imported in the one way that suits a daemon. Import `grpc` and `aio` from here, and only when gRPC is used.

It adds about 13 MB to the process, so nothing that HTTP alone needs may import this.
"""

from __future__ import annotations

import os

# grpcio's core writes to stderr past every logger, a line for each failed handshake or connection: a port scan would
# fill the disk. What matters comes back as errors. Set the variable to see them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc import aio

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
"""grpcio's status by number, as `google.rpc.Status` has them."""

STATUS_DETAILS = "grpc-status-details-bin"
"""Trailer that holds a serialized `google.rpc.Status`."""

__all__ = ["CODES", "STATUS_DETAILS", "aio", "grpc"]
