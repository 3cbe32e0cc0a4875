"""`Batch`: one OTLP export request in protobuf wire form, with the account of whose items it holds.

Invariants:

* `body` is a serialized `Export{Traces,Metrics,Logs}ServiceRequest`. Two of them, one after the other, are the merged
  request, so merging is concatenation.
* `shares` says whose items these are: `(receipt, items)` pairs in the order of the items in `body`, whose counts add up
  to `items`. A stage that drops items keeps the order and settles what it drops (`selection.Selection`).
* A batch is never changed once handed on; a stage that changes something makes a new one with `with_body`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.model.receipt import SHUTDOWN, Outcome, Receipt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.model.signal import Signal

Share = tuple[Receipt, int]

_NO_HEADERS: dict[str, str] = {}


class Origin:
    """Where a batch came from: `receiver` id, `transport`, `tenant` ("" if there is none), the client's `headers`.

    Header names are lower case. The tenant is derived from the client's key by the receiver, never taken from a header
    that the client chose. Origins are shared between batches and never changed.
    """

    __slots__ = ("headers", "receiver", "tenant", "transport")

    def __init__(
        self, receiver: str = "", transport: str = "", tenant: str = "", headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        """Describe a sender."""
        self.receiver = receiver
        self.transport = transport
        self.tenant = tenant
        self.headers = headers


class Batch:
    """A request or several merged, in wire form."""

    __slots__ = ("admitted", "body", "encodings", "items", "origin", "shares", "signal")

    def __init__(  # noqa: PLR0913, PLR0917 - a record: each argument is a field
        self,
        signal: Signal,
        body: bytes,
        items: int,
        origin: Origin,
        shares: Sequence[Share],
        encodings: tuple[str, ...] = (),
    ) -> None:
        """Hold `items` items in `body`, accounted for by `shares`; `encodings` lists what was done to the body."""
        self.signal = signal
        self.body = body
        self.items = items
        self.origin = origin
        self.shares = shares
        self.encodings = encodings
        self.admitted = False
        """Set by a fan-out when every branch had capacity for the batch: other branches may have accepted it already,
        so that bounded buffers must accept it, even beyond their capacity. It does not survive merging."""

    def __len__(self) -> int:
        """Return the bytes of the body."""
        return len(self.body)

    def with_body(self, body: bytes, items: int | None = None, shares: Sequence[Share] | None = None) -> Batch:
        """Return the same batch with another body, and other items and shares if given."""
        batch = Batch(
            self.signal,
            body,
            self.items if items is None else items,
            self.origin,
            self.shares if shares is None else shares,
            self.encodings,
        )
        batch.admitted = self.admitted
        return batch

    def settle(self, outcome: Outcome, reason: str = "") -> None:
        """Settle every item of it as `outcome`."""
        for receipt, items in self.shares:
            receipt.settle(outcome, items, reason)

    def abandon(self) -> int:
        """Let go of every item of it because who holds it stops; return how many that drops.

        What a journal has waits there: after a reload it comes back to what runs then, else at the next start. The rest
        is dropped.
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
        """Return one batch for each branch of a fan-out, with receipts of their own over the same bytes."""
        columns: list[list[Share]] = [[] for _ in branches]
        for receipt, items in self.shares:
            for column, fork in zip(columns, receipt.part(items).fork(branches), strict=True):
                column.append((fork, items))
        return [self.with_body(self.body, shares=column) for column in columns]


def merge(batches: Sequence[Batch], origin: Origin | None = None) -> Batch:
    """Return one batch with everything in `batches` (at least one; same signal, same encodings), in their order."""
    first = batches[0]
    if len(batches) == 1 and origin is None:
        return first
    shares: list[Share] = []
    items = 0
    for batch in batches:
        shares += batch.shares
        items += batch.items
    body = b"".join([batch.body for batch in batches])
    return Batch(first.signal, body, items, origin or first.origin, shares, first.encodings)


def divide(shares: Sequence[Share], sizes: Sequence[int]) -> list[list[Share]]:
    """Divide shares among consecutive parts of `sizes` items; raise `ValueError` if they do not add up to theirs."""
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
            assert receipt is not None  # noqa: S101 - left > 0 says so
            part.append((receipt, take))
            left -= take
            need -= take
        parts.append(part)
    return parts
