"""Whether the count of a message agrees with protobuf, in C and in Python."""

from __future__ import annotations

from typing import Any

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import counting, projections
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.signal import Signal

KEYS = {signal: counting.schema(pb.PointShape if signal is Signal.METRICS else pb.Shape, weight=8) for signal in Signal}
SCHEMAS = [*KEYS.values(), *[counting.schema(request_class(signal)) for signal in Signal]]
LIMIT = 50


def agree(body: bytes, native: Any) -> None:
    """Assert that `body` is judged alike as a request of each signal, below and above a limit."""
    for signal, schema in KEYS.items():
        try:
            expected = projections.check(signal, body)
        except MalformedError:
            expected = counting.MALFORMED
        counted = counting.count(body, schema, 10**9)
        assert counted == expected or (counted == counting.MALFORMED and not _parses(signal, body))
    if native is not None:
        for schema in SCHEMAS:
            for limit in (LIMIT, 10**9):
                assert native.count(body, schema, limit) == counting.count(body, schema, limit)


def _parses(signal: Signal, body: bytes) -> bool:
    """Whether protobuf reads all of a request; in messages without fields it accepts the field number 0."""
    try:
        projections.parse(request_class(signal).FromString, body)
    except MalformedError:
        return False
    return True
