"""Divide a batch by keys, such as trace ids, so that everything with the same key goes to the same destination.

A `Divider` is made for one kind of key. It gets a function that returns the destination of a key, and returns the part
of the batch for each destination. Traces are divided by trace id without parsing spans, if the extension module exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.message import DecodeError

from otelwp_agent.errors import MalformedError
from otelwp_agent.model import projection_pb2 as pb
from otelwp_agent.model.projections import parse
from otelwp_agent.model.signal import Signal
from otelwp_agent.routing.division import ITEM_PARSERS, batch_of, by_items, by_resources
from otelwp_agent.sampling.traces import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otelwp_agent.model.batch import Batch, Share
    from otelwp_agent.routing.division import Routed

    Choose = Callable[[bytes], str]
    """Returns the destination of a key."""
    Divider = Callable[[Batch, Choose], list[tuple[str, Batch]]]
    """Returns the part of a batch for each destination, in the order of their first items."""

Key = Literal["traceID", "service", "resource", "metric", "attributes"]

SIGNALS: dict[Key, frozenset[Signal]] = {
    "traceID": frozenset({Signal.TRACES, Signal.LOGS}),
    "service": frozenset(Signal),
    "resource": frozenset(Signal),
    "metric": frozenset({Signal.METRICS}),
    "attributes": frozenset({Signal.TRACES, Signal.LOGS}),
}
"""The signals that have a key."""
SERVICE = b"service.name"
NAME, KIND = b"span.name", b"span.kind"
"""Names in a list of attributes that stand for fields of a span."""

_CODES = 255
"""Number of destinations that one byte can name; 0 stands for all others."""


def divider(key: Key, signal: Signal, attributes: Sequence[str] = ()) -> Divider:
    """Return the function that divides batches of a signal by a key.

    `attributes` are the names for the key `attributes`: of the resource; if it has none, of the scope; and then of the
    item. Raises `ValueError` if the signal does not have the key.
    """
    if signal not in SIGNALS[key]:
        message = f"{signal.value} have no key `{key}`"
        raise ValueError(message)
    if key == "traceID":
        return by_trace if signal is Signal.TRACES else _by_item(_trace_of_log)
    if key == "metric":
        return _by_item(_metric_name)
    if key == "attributes":
        return _ByAttributes(signal, [name.encode() for name in attributes])
    return _by_resource(_service_of if key == "service" else _identity_of)


def by_trace(batch: Batch, choose: Choose) -> list[tuple[str, Batch]]:
    """Divide traces by trace id. Spans with an invalid id have the key b""."""
    request, pieces = read(batch.body)
    owners = [choose(piece[0]) for piece in pieces] or [choose(b"")]
    names = list(dict.fromkeys(owners))
    if len(names) == 1:
        return [(names[0], batch)]
    parts = []
    for start in range(0, len(names), _CODES):
        codes = {name: code for code, name in enumerate(names[start : start + _CODES], 1)}
        spread = request.spread(bytes([codes.get(owner, 0) for owner in owners]))
        for name, code in codes.items():
            body = request.select([b"" if owner == name else None for owner in owners])
            parts.append((name, batch.with_body(body, spread.count(code), _shares(batch.shares, spread, code))))
    return parts


def _shares(shares: Sequence[Share], spread: bytes, code: int) -> list[Share]:
    """Return the shares of the items whose byte in `spread` is `code`."""
    if len(shares) == 1:
        return [(shares[0][0], spread.count(code))]
    found, start = [], 0
    for receipt, items in shares:
        own = spread.count(code, start, start + items)
        if own:
            found.append((receipt, own))
        start += items
    return found


def by_tenant(batch: Batch, choose: Choose) -> list[tuple[str, Batch]]:
    """Return the whole batch with the destination of its tenant; its body is not read."""
    return [(choose(batch.origin.tenant.encode()), batch)]


def by_resource_attribute(name: str) -> Divider:
    """Return a divider by one attribute of each resource. Resources without it have the key b""."""
    wanted = name.encode()
    return _by_resource(lambda resource: next((each.value for each in resource.attributes if each.key == wanted), b""))


def _parts(batch: Batch, routed: Iterable[Routed]) -> list[tuple[str, Batch]]:
    return [(part.targets[0], batch_of(batch, part)) for part in routed]


def _by_resource(key_of: Callable[[pb.Resource], bytes]) -> Divider:
    """Return a divider by a key of each resource."""

    def divide(batch: Batch, choose: Choose) -> list[tuple[str, Batch]]:
        request = parse(pb.Resources.FromString, batch.body)
        targets = [(choose(key_of(parse(pb.Resource.FromString, group.resource))),) for group in request.resources]
        if not targets:
            return [(choose(b""), batch)]
        return _parts(batch, by_resources(batch.signal, batch.body, request, targets))

    return divide


def _service_of(resource: pb.Resource) -> bytes:
    return next((each.value for each in resource.attributes if each.key == SERVICE), b"")


def _identity_of(resource: pb.Resource) -> bytes:
    """Return a key of all attributes, whatever their order."""
    return b"".join(sorted([each.SerializeToString() for each in resource.attributes]))


def _by_item(key_of: Callable[[bytes], bytes]) -> Divider:
    """Return a divider by a key of each serialized item."""

    def divide(batch: Batch, choose: Choose) -> list[tuple[str, Batch]]:
        request = parse(pb.Slices.FromString, batch.body)
        try:
            targets = [
                (choose(key_of(item)),) for group in request.resources for scope in group.scopes for item in scope.items
            ]
        except DecodeError as error:
            raise _malformed() from error
        return _parts(batch, by_items(batch.signal, batch.body, request, targets)) or [(choose(b""), batch)]

    return divide


def _trace_of_log(item: bytes) -> bytes:
    """Return the trace id of a log record; without one, the record itself, so that such records are spread evenly."""
    return pb.SampledLog.FromString(item).trace_id or item


def _metric_name(item: bytes) -> bytes:
    return pb.MetricAttributes.FromString(item).name


class _ByAttributes:
    """Divides by the values of some attributes, as a `Divider`."""

    def __init__(self, signal: Signal, names: Sequence[bytes]) -> None:
        """Read the attributes with these names."""
        self._names = names
        self._parse: Callable[[bytes], Any] = ITEM_PARSERS[signal]

    def __call__(self, batch: Batch, choose: Choose) -> list[tuple[str, Batch]]:
        """Return the part of the batch for each destination."""
        request = parse(pb.Slices.FromString, batch.body)
        targets: list[tuple[str]] = []
        try:
            for group in request.resources:
                outer = self._values(pb.Resource.FromString(group.resource).attributes)
                for scope in group.scopes:
                    around = self._values(pb.RoutedScope.FromString(scope.scope).attributes) | outer
                    if len(around) == len(self._names):
                        targets += [(choose(self._key(around)),)] * len(scope.items)
                    else:
                        targets += [(choose(self._key(self._of(item) | around)),) for item in scope.items]
        except DecodeError as error:
            raise _malformed() from error
        return _parts(batch, by_items(batch.signal, batch.body, request, targets)) or [(choose(b""), batch)]

    def _of(self, data: bytes) -> dict[bytes, bytes]:
        item = self._parse(data)
        found = self._values(item.attributes)
        if isinstance(item, pb.RoutedSpan):
            found |= {NAME: item.name, KIND: b"%d" % item.kind}
        return found

    def _values(self, attributes: Iterable[pb.KeyValue]) -> dict[bytes, bytes]:
        """Return the value of the first attribute of each name that is needed."""
        found: dict[bytes, bytes] = {}
        for attribute in attributes:
            key = attribute.key
            if key in self._names and key not in found:
                found[key] = attribute.value
        return found

    def _key(self, values: dict[bytes, bytes]) -> bytes:
        parts = [values.get(name, b"") for name in self._names]
        return b"".join([len(part).to_bytes(4) + part for part in parts])


def _malformed() -> MalformedError:
    return MalformedError("the body is not a serialized OTLP export request")
