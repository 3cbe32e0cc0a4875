"""Serialized spans joined as the fields of a scope: one `bytes` object takes the least memory."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Head = tuple[bytes, bytes]
"""The rest of the resource's message and of the scope's message around spans, both serialized."""

_RESOURCE, _SCOPE, _SPAN = b"\x0a", b"\x12", b"\x12"
"""Tags of a request's resources (1), a resource's scopes (2) and a scope's spans (2)."""
_PREFIXES = [_SPAN + size for size in VARINTS]


def frame(spans: Sequence[bytes]) -> bytes:
    """Join serialized spans as the fields of a scope."""
    if max(map(len, spans), default=0) < SMALL:
        return b"".join([_PREFIXES[len(span)] + span for span in spans])
    return b"".join([prefixed(_SPAN, span) for span in spans])


def unframe(framed: bytes) -> list[bytes]:
    """Split the result of `frame` into spans."""
    return parse(pb.OpaqueScope.FromString, framed).items[:]


def enclose(parts: Iterable[tuple[Head, bytes]]) -> bytes:
    """Return a request of framed spans with their heads. Neighbours with equal heads share one."""
    request = []
    for resource, of_resource in groupby(parts, lambda part: part[0][0]):
        scopes = [resource]
        for scope, of_scope in groupby(of_resource, lambda part: part[0][1]):
            scopes.append(prefixed(_SCOPE, scope + b"".join([framed for _, framed in of_scope])))
        request.append(prefixed(_RESOURCE, b"".join(scopes)))
    return b"".join(request)
