"""Read the head of a gRPC call (gRPC over HTTP/2, "Requests"), once for each remembered head."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from otelwp_agent.transport import grpc_answers
from otelwp_agent.transport.gate import Caller

if TYPE_CHECKING:
    from otelwp_agent.transport.http2.request_heads import RequestHead

_CONTENT_TYPE = re.compile(r"application/grpc(\+proto)?\s*(;.*)?")
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HIDDEN = frozenset({"te", "content-type", "content-length"})


class CallHead:
    """The meaning of a head."""

    __slots__ = ("caller", "encoding", "http_status", "known_encoding", "metadata")

    def __init__(self, head: RequestHead) -> None:
        """Read `head`."""
        fields = head.fields
        encoding = fields.get("grpc-encoding", "identity")
        self.encoding = "" if encoding == "identity" else encoding
        """Encoding of a message whose prefix says that it is compressed."""
        self.known_encoding = encoding == "identity" or encoding in grpc_answers.ENCODINGS
        self.metadata = {name: value for name, value in fields.items() if _is_metadata(name)}
        """Fields without those of the protocol and without binary values."""
        self.caller = Caller(self.metadata)
        """The sender, if the server has no gate."""
        is_grpc = _CONTENT_TYPE.fullmatch(fields.get("content-type", ""))
        self.http_status = 405 if head.method != "POST" else 0 if is_grpc else 415
        """Status of the answer to a request that is not gRPC; 0 if it is."""


def _is_metadata(name: str) -> bool:
    return not (name in _HIDDEN or name.startswith("grpc-") or name.endswith("-bin"))


def seconds_of(timeout: bytes | None) -> float:
    """Return the seconds of a `grpc-timeout`: infinity without one; NaN if it is invalid."""
    if timeout is None:
        return math.inf
    found = _TIMEOUT.fullmatch(timeout)
    return int(found[1]) * _SECONDS[found[2]] if found else math.nan
