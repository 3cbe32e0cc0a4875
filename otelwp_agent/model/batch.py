"""`Batch`: one serialized OTLP export request (protobuf), with the receipts that its items belong to.

Invariants:

* `body` is a serialized `Export{Traces,Metrics,Logs}ServiceRequest`. The concatenation of two is the merged request.
* With `encodings`, the body is compressed or encrypted: such a batch is never read, merged or split.
* `shares` are `(receipt, items)` pairs in the order of the items in `body`; their counts add up to `items`. A component
  that drops items keeps the order and settles the dropped items (`selection.Selection`).
* A batch is never changed after it has been forwarded; `with_body` makes a changed copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from otelwp_agent.model.receipt import SHUTDOWN, Outcome, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.model.message import Message
    from otelwp_agent.model.signal import Signal

Share = tuple[Receipt, int]

_NO_HEADERS: dict[str, str] = {}
_NOWHERE: Mapping[str, bool] = {}


class ItemAllowance(Protocol):
    """How much one sender may still send."""

    def charge(self, items: int, size: int) -> None:
        """Count a request of `items` items and `size` bytes, or raise `Overloaded` and count nothing."""

    def refund(self, items: int, size: int) -> None:
        """Take back a `charge`: the request was refused for another reason."""


class Resealable(Protocol):
    """The content of a sealed batch, which can be sealed again: with a new time and current keys, and the same id."""

    @property
    def envelope(self) -> bytes:
        """The envelope that was sealed last."""

    @property
    def sealed_at(self) -> float:
        """When that was, in seconds since 1970."""

    @property
    def size(self) -> int:
        """Bytes of memory of the content."""

    async def seal_again(self, *, refresh: bool) -> bytes:
        """Return a new envelope; with `refresh`, request the keys of the recipient before."""


class Origin:
    """Origin of a batch: `receiver` id, `transport`, `tenant` ("" if there is none) and the client's `headers`.

    Header names are lower case. The receiver derives the tenant from the client's key, never from a header that the
    client can choose. Pipelines charge `allowance`, if there is one, when they accept a request. Origins are shared
    between batches and never changed.
    """

    __slots__ = ("allowance", "headers", "receiver", "tenant", "transport")

    def __init__(
        self,
        receiver: str = "",
        transport: str = "",
        tenant: str = "",
        headers: Mapping[str, str] = _NO_HEADERS,
        allowance: ItemAllowance | None = None,
    ) -> None:
        """Describe the sender of a request."""
        self.allowance = allowance
        self.receiver = receiver
        self.transport = transport
        self.tenant = tenant
        self.headers = headers


class Batch:
    """One or several merged requests, serialized."""

    __slots__ = (
        "admitted", "body", "encodings", "items", "message", "origin", "plain_size", "resealable", "shares", "signal",
        "tried",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917 - a record: each argument is a field
        self,
        signal: Signal,
        body: bytes,
        items: int,
        origin: Origin,
        shares: Sequence[Share],
        encodings: tuple[str, ...] = (),
    ) -> None:
        """Make a batch of `items` items that belong to `shares`; `encodings` lists the encodings of `body`."""
        self.signal = signal
        self.body = body
        self.items = items
        self.origin = origin
        self.shares = shares
        self.encodings = encodings
        self.admitted = False
        """Set by a fan-out when every branch had capacity for the batch: other branches may have accepted it already,
        so that bounded buffers must accept it, even beyond their capacity. It does not survive merging."""
        self.message: Message | None = None
        """The request that a receiver made the batch of, if it is processed once. Copies of the batch have none."""
        self.plain_size = 0
        """Bytes of the body before it was encoded in this agent; 0 if it was not."""
        self.resealable: Resealable | None = None
        """The content of `body`, if that is an envelope that this agent has sealed."""
        self.tried = _NOWHERE
        """The destinations of a connector that could not deliver it, and whether they refused it permanently. It does
        not survive merging."""

    def __len__(self) -> int:
        """Return the size of the body in bytes."""
        return len(self.body)

    @property
    def memory(self) -> int:
        """Bytes that its body takes in memory, with what is kept to seal it again."""
        return len(self.body) if self.resealable is None else len(self.body) + self.resealable.size

    def with_body(self, body: bytes, items: int | None = None, shares: Sequence[Share] | None = None) -> Batch:
        """Return a copy with another body of the same encodings, and with other items and shares if given."""
        batch = Batch(
            self.signal,
            body,
            self.items if items is None else items,
            self.origin,
            self.shares if shares is None else shares,
            self.encodings,
        )
        batch.admitted = self.admitted
        batch.tried = self.tried
        if body is self.body:
            batch.plain_size = self.plain_size
            batch.resealable = self.resealable
        return batch

    def encoded(self, encoding: str, body: bytes, resealable: Resealable | None = None) -> Batch:
        """Return a copy whose body was encoded with `encoding`, after the encodings that it had."""
        encodings = (*self.encodings, encoding)
        batch = Batch(self.signal, body, self.items, self.origin, self.shares, encodings)
        batch.admitted = self.admitted
        batch.plain_size = self.plain_size if self.encodings else len(self.body)
        batch.resealable = resealable
        return batch

    def settle(self, outcome: Outcome, reason: str = "") -> None:
        """Settle all items as `outcome`."""
        for receipt, items in self.shares:
            receipt.settle(outcome, items, reason)

    def abandon(self) -> int:
        """Release all items because the component that holds the batch stops; return how many are dropped.

        Items that a journal has are parked there and replayed after the reload or at the next start. The others are
        dropped.
        """
        dropped = 0
        for receipt, items in self.shares:
            if receipt.claim is not None:
                receipt.park(items)
            else:
                receipt.settle(Outcome.DROPPED, items, SHUTDOWN)
                dropped += items
        return dropped

    def fork(self, branches: Sequence[str]) -> list[Batch]:
        """Return one batch for each branch of a fan-out, with the same body and separate receipts."""
        columns: list[list[Share]] = [[] for _ in branches]
        for receipt, items in self.shares:
            for column, fork in zip(columns, receipt.part(items).fork(branches), strict=True):
                column.append((fork, items))
        return [self.with_body(self.body, shares=column) for column in columns]


def merge(batches: Sequence[Batch], origin: Origin | None = None) -> Batch:
    """Merge `batches` in order into one batch. There must be at least one, all of one signal.

    Raises `ValueError` if there are several and any is encoded.
    """
    first = batches[0]
    if len(batches) == 1 and origin is None:
        return first
    shares: list[Share] = []
    items = 0
    for batch in batches:
        if batch.encodings and len(batches) > 1:
            raise ValueError(f"bodies that are encoded with {', '.join(batch.encodings)} cannot be merged")
        shares += batch.shares
        items += batch.items
    body = b"".join([batch.body for batch in batches]) if len(batches) > 1 else first.body
    merged = Batch(first.signal, body, items, origin or first.origin, shares, first.encodings)
    merged.plain_size, merged.resealable = first.plain_size, first.resealable
    return merged


def divide(shares: Sequence[Share], sizes: Sequence[int]) -> list[list[Share]]:
    """Divide shares into consecutive parts of `sizes` items; raise `ValueError` if the sums of items differ."""
    if sum(sizes) != sum([items for _, items in shares]):
        message = f"{sum(sizes)} items cannot be divided among shares of {[items for _, items in shares]}"
        raise ValueError(message)
    parts: list[list[Share]] = []
    queue = iter(shares)
    receipt, left = None, 0
    for size in sizes:
        part: list[Share] = []
        need = size
        while need:
            if not left:
                receipt, left = next(queue)
                continue
            take = min(left, need)
            assert receipt is not None  # noqa: S101 - follows from left > 0
            part.append((receipt, take))
            left -= take
            need -= take
        parts.append(part)
    return parts
