"""Check OTLP requests as they arrive: that they parse, and that they hold no more than a receiver accepts.

The count comes before the objects: two bytes on the wire can become a span of 250 bytes. Where the extension module is,
it checks and counts in one pass without building anything. Elsewhere only bodies large enough to exceed the limit are
counted before protobuf parses them.
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
"""Resources, scopes and items in a request, where nothing else is configured: 20 MiB of spans with 80 bytes each."""

PARTS = 8
"""Messages inside of items (attributes, their values, events, links) for each item that a receiver accepts, where they
become objects; 2 million by default, which is one for each 10 bytes of the largest body."""

SMALLEST = 2
"""Bytes of the smallest message inside another one: a tag and a length."""

_count = counting.count if extension is None else extension.count


def checker(signal: Signal, max_items: int = DEFAULT_MAX_ITEMS, *, full: bool = False) -> Callable[[bytes], int]:
    """Return a function that checks a request and returns the number of its items.

    It raises `TooLargeError` for more than `max_items` resources, scopes and items together, and `MalformedError` for
    what does not parse: down to the item (for metrics the data point), or with `full` down to the last value.
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
    """Raise `TooLargeError` if a serialized message holds more than `PARTS * max_items` messages; or `MalformedError`.

    For messages that are parsed into objects as a whole. Elements of the fields in `items` (full names) count as
    `PARTS` messages each, so that there are at most `max_items` of them.
    """
    limit = PARTS * max_items
    smallest = SMALLEST * (max_items if items else limit)
    if len(body) < smallest:
        return
    outcome = _count(body, _schema(kind, items), limit)
    if outcome == counting.BEYOND_LIMIT:
        raise too_many(max_items)
    if outcome < 0:
        raise MalformedError(f"the body is not a serialized {kind.DESCRIPTOR.full_name}")


def _schema(kind: type[Message], items: frozenset[str]) -> bytes:
    """Return the schema of a message type, made once: it takes half a millisecond."""
    found = _schemas.get(kind)
    if found is None:
        found = _schemas[kind] = counting.schema(kind, weight=PARTS, weighty=items)
    return found


_schemas: dict[type[Message], bytes] = {}


def too_many(max_items: int) -> TooLargeError:
    """Return the error for a request that holds more than a receiver accepts."""
    return TooLargeError(
        f"the request holds more than {max_items} resources, scopes and items, or too many parts for these: send "
        "smaller batches, or raise max_items_per_request of this receiver"
    )


def _error(outcome: int, max_items: int) -> MalformedError | TooLargeError:
    if outcome == counting.BEYOND_LIMIT:
        return too_many(max_items)
    return MalformedError("the body is not a serialized OTLP export request")
