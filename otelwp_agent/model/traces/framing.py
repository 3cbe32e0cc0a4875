"""Spans as the fields of a scope that they are, one after the other: as one `bytes` they take the least memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.wire import SMALL, VARINTS, prefixed

if TYPE_CHECKING:
    from collections.abc import Sequence

Head = tuple[bytes, bytes]
"""What stands around spans: the rest of their resource's message and of their scope's, serialized."""

_RESOURCE, _SCOPE, _SPAN = b"\x0a", b"\x12", b"\x12"
"""The tags of a request's resources (1), a resource's scopes (2) and a scope's spans (2)."""
_PREFIXES = [_SPAN + size for size in VARINTS]


def frame(spans: Sequence[bytes]) -> bytes:
    """Return spans as the fields of a scope."""
    if max(map(len, spans), default=0) < SMALL:
        return b"".join([_PREFIXES[len(span)] + span for span in spans])
    return b"".join([prefixed(_SPAN, span) for span in spans])


def unframe(framed: bytes) -> list[bytes]:
    """Return what was framed."""
    return parse(pb.OpaqueScope.FromString, framed).items[:]


def enclose(head: Head, framed: bytes) -> bytes:
    """Return a request of framed spans and what stands around them."""
    resource, scope = head
    return prefixed(_RESOURCE, resource + prefixed(_SCOPE, scope + framed))
