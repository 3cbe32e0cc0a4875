"""Seal the bodies of batches to the current key of a recipient, and seal them again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from otelwp_agent.sealing.envelope import ENCODING, SealedHeader, seal
from otelwp_agent.sealing.message_ids import MessageIds
from otelwp_agent.transport.decoding import OFF_LOOP, executor

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sealing.recipient_source import RecipientSource


class Sealer:
    """Seals for one customer and agent."""

    def __init__(
        self, source: RecipientSource, customer: str, agent: str, now: Callable[[], float] = time.time
    ) -> None:
        """Seal to the keys of `source`. Without `customer`, the tenant of a batch is its customer.

        `now` returns seconds since 1970.
        """
        self.source = source
        self.ids = MessageIds()
        """Makes the ids of messages."""
        self._customer = customer
        self._agent = agent
        self._now = now

    def seal(self, batch: Batch) -> Batch:
        """Return the batch with its body in an envelope; raise `RetryableError` if there is no key now.

        May be called in a thread.
        """
        customer = self._customer or batch.origin.tenant
        header = SealedHeader(
            customer,
            0,
            self._agent,
            self.ids.of(batch, customer),
            batch.signal,
            batch.encodings,
            batch.items,
            batch.plain_size if batch.encodings else len(batch.body),
        )
        content = SealedContent(self, header, batch.body)
        return batch.encoded(ENCODING, content.envelope, content)

    def stamped(self, header: SealedHeader) -> SealedHeader:
        """Return the header with the current time."""
        return replace(header, time=int(self._now() * 1000))


class SealedContent:
    """The content of a sealed batch (`model.batch.Resealable`)."""

    __slots__ = ("_content", "_header", "_sealer", "envelope", "sealed_at", "size")

    def __init__(self, sealer: Sealer, header: SealedHeader, content: bytes) -> None:
        """Seal `content` for the first time."""
        self._sealer = sealer
        self._header = header
        self._content = content
        self.size = len(content)
        """Bytes of memory, without the envelope that the batch has as its body."""
        self._seal()

    async def seal_again(self, *, refresh: bool) -> bytes:
        """Return a new envelope with the same message id; with `refresh`, request the keys of the recipient before."""
        if refresh:
            await self._sealer.source.renew()
        if len(self._content) >= OFF_LOOP:
            await asyncio.get_running_loop().run_in_executor(executor(), self._seal)
        else:
            self._seal()
        self.size = len(self._content) + len(self.envelope)
        return self.envelope

    def _seal(self) -> None:
        header = self._sealer.stamped(self._header)
        self.envelope = seal(self._sealer.source.current(), header, self._content)
        self.sealed_at = header.time / 1000
