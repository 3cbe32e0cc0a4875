"""Import grpcio with the settings that suit a daemon. Import `grpc` and `aio` from here, and only when gRPC is used.

The import adds about 13 MB to the process. A module that HTTP alone needs must not import this one.
"""

from __future__ import annotations

import os

# grpcio's core writes a line to stderr for each failed handshake or connection, outside the logger: a port scan would
# fill the disk. The important failures are raised as errors. Set the variable to see the lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc
from grpc import aio

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
"""grpcio's status objects by number, as in `google.rpc.Status`."""

STATUS_DETAILS = "grpc-status-details-bin"
"""Trailer that contains a serialized `google.rpc.Status`."""

__all__ = ["CODES", "STATUS_DETAILS", "aio", "grpc"]
