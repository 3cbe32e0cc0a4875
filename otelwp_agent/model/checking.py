"""Check received OTLP requests: they must parse, and must not contain more messages than a receiver accepts.

Messages are counted before objects are created, because two bytes of a request can become a span object of 250 bytes.
The C extension, if available, checks and counts in one pass without creating objects. Without it, only bodies that are
large enough to exceed the limit are counted before protobuf parses them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.model import counting, projections
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.messages import request_class
from otelwp_agent.model.native import extension
from otelwp_agent.model.signal import Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

DEFAULT_MAX_ITEMS = 250_000
"""Default limit of resources, scopes and items in a request: 20 MiB of spans with 80 bytes each."""

PARTS = 8
"""Limit of the messages inside items (attributes, their values, events, links) if objects are created for them, as a
multiple of the limit of items; 2 million by default, which is one message for each 10 bytes of the largest body."""

SMALLEST = 2
"""Bytes of the smallest nested message: a tag and a length."""

_count = counting.count if extension is None else extension.count


def checker(signal: Signal, max_items: int = DEFAULT_MAX_ITEMS, *, full: bool = False) -> Callable[[bytes], int]:
    """Return a function that checks a request and returns the number of its items.

    It raises `TooLargeError` for more than `max_items` resources, scopes and items together, and `MalformedError` if
    the request does not parse down to the items (for metrics: the data points) or, with `full`, down to all values.
    """
    shape: type[Message] = pb.PointShape if signal is Signal.METRICS else pb.Shape
    limit = PARTS * max_items
    if extension is not None:
        keys = counting.schema(shape, weight=PARTS)

        def check(body: bytes) -> int:
            items = _count(body, keys, limit)
            if items < 0:
                raise _error(items, max_items)
            return items
    else:
        spine = counting.schema(shape, weight=PARTS, leaves={pb.Anything.DESCRIPTOR.full_name})

        def check(body: bytes) -> int:
            if len(body) >= SMALLEST * max_items and (outcome := counting.count(body, spine, limit)) < 0:
                raise _error(outcome, max_items)
            return projections.check(signal, body)

    if not full:
        return check

    def check_fully(body: bytes) -> int:
        items = check(body)
        kind = request_class(signal)
        refuse_too_many(body, kind, max_items)
        projections.parse(kind.FromString, body)
        return items

    return check_fully


def refuse_too_many(body: bytes, kind: type[Message], max_items: int, *, items: frozenset[str] = frozenset()) -> None:
    """Raise `TooLargeError` if a serialized message contains more than `PARTS * max_items` messages.

    Use it for messages that are parsed completely. Elements of the fields in `items` (full names) count as `PARTS`
    messages each, so that at most `max_items` of them are accepted. Raises `MalformedError` if `body` does not parse.
    """
    limit = PARTS * max_items
    smallest = SMALLEST * (max_items if items else limit)
    if len(body) < smallest:
        return
    outcome = _count(body, schema(kind, items), limit)
    if outcome == counting.BEYOND_LIMIT:
        raise too_many(max_items)
    if outcome < 0:
        raise MalformedError(f"the body is not a serialized {kind.DESCRIPTOR.full_name}")


def schema(kind: type[Message], items: frozenset[str] = frozenset()) -> bytes:
    """Return the schema of a message type from a cache: creating it takes half a millisecond."""
    found = _schemas.get(kind)
    if found is None:
        found = _schemas[kind] = counting.schema(kind, weight=PARTS, weighty=items)
    return found


_schemas: dict[type[Message], bytes] = {}


def too_many(max_items: int) -> TooLargeError:
    """Return the error for a request that contains more messages than a receiver accepts."""
    return TooLargeError(
        f"the request contains more than {max_items} resources, scopes and items, or too many parts for these: send "
        "smaller batches, or raise max_items_per_request of this receiver"
    )


def _error(outcome: int, max_items: int) -> MalformedError | TooLargeError:
    if outcome == counting.BEYOND_LIMIT:
        return too_many(max_items)
    return MalformedError("the body is not a serialized OTLP export request")
