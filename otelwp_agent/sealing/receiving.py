"""Receive sealed envelopes over HTTP: check them, open them or forward them as they are, and answer refusals.

Nothing of an envelope is authenticated before it is opened. The tenant is that of the credential; the customer in the
envelope must be the same. In the mode `forward` this process has no keys: it counts, limits and stores envelopes by
what their header says in clear, as authenticated by the credential of the tenant only.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError, TooLargeError
from otelwp_agent.model.batch import Batch
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.sealing import content
from otelwp_agent.sealing.envelope import ENCODING, OTLP, TRANSPORT, parse, unseal
from otelwp_agent.sealing.errors import SealedError, SealedReason
from otelwp_agent.sealing.freshness import Freshness, check_tenant
from otelwp_agent.sealing.key_ring import KeyRing
from otelwp_agent.sealing.metrics import ENVELOPES
from otelwp_agent.storage import files
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.model.signal import Signal
    from otelwp_agent.sealing.deduplication import Deduplicator
    from otelwp_agent.sealing.envelope import Envelope, SealedHeader
    from otelwp_agent.telemetry.metrics import Registry
    from otelwp_agent.transport.decoding import Decoding, Steps
    from otelwp_agent.transport.http_messages import Head, Response
    from otelwp_agent.transport.otlp_answers import OtlpRoute

    Answer = Response | asyncio.Future[Response]

OFF_LOOP = 256 * 1024
"""Bytes of an OTLP request from which on its envelope is opened in a thread: a millisecond on the event loop."""


class SealedBodies:
    """Handles the envelopes that one receiver gets."""

    def __init__(  # noqa: PLR0913 - the settings, and the parts of a receiver
        self,
        settings: blocks.Sealed,
        deduplicator: Deduplicator,
        *,
        name: str,
        receiver: str,
        max_items: int,
        max_bytes: int,
        decoding: Decoding[Response],
        registry: Registry,
        log: structlog.typing.FilteringBoundLogger,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `start` reads the keys. An OTLP request may have `max_items` items and `max_bytes` bytes."""
        self.opens = settings.mode == "open"
        self._freshness = Freshness(settings.freshness, settings.clock_skew)
        self._deduplicator = deduplicator
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._decoding = decoding
        self._now = now
        self._ring = KeyRing(())
        self._file = WatchedFile(settings.keys, self._use, name=name, log=log) if self.opens else None
        self._creates = settings.create
        self._name, self._log = name, log
        self._counter = registry.counter(ENVELOPES, receiver=receiver, mode=settings.mode)

    def start(self) -> None:
        """Read the keys and watch their file; raise `StartError`."""
        if self._file is not None:
            if self._creates and not self._file.path.exists():
                self._create(self._file.path)
            self._file.start()

    def stop(self) -> None:
        """Stop watching the file."""
        if self._file is not None:
            self._file.stop()

    def refresh(self) -> None:
        """Read the keys again if their file has changed."""
        if self._file is not None:
            self._file.check()

    def read(
        self, route: OtlpRoute, body: bytes, head: Head, origin: Origin, answers: tuple[Response, Response]
    ) -> Answer:
        """Handle a request; `answers` are those if it is accepted now, and if it was accepted before.

        Raises `SealedError`, or what the pipelines raise.
        """
        ok, again = answers
        envelope = parse(body)
        header, tenant = envelope.header, origin.tenant
        _check_kind(header, route.signal)
        if tenant:
            check_tenant(header, tenant)
        self._freshness.check(header, self._now())
        message = self._deduplicator.message(tenant or header.customer, header)

        def forward(data: bytes, items: int, encodings: tuple[str, ...] = ()) -> Answer:
            batch = Batch(route.signal, data, items, origin, ((Receipt(items), items),), encodings)
            batch.message = message
            return self._deduplicator.process(message, lambda: self._forward(route, batch, head, ok), again)

        def forward_opened(opened: tuple[bytes, int]) -> Answer:
            plain, items = opened
            if items != header.items:
                raise _malformed(f"it holds {items} items, but its header says {header.items}")
            return forward(plain, items) if items else ok

        if not self.opens:
            self._check_amount(envelope)
            return forward(body, header.items, (*header.encodings, ENCODING)) if header.items else ok
        ring = self._ring
        if header.plain_size < OFF_LOOP:
            plain = self._open(envelope, ring)
            return forward_opened((plain, route.check(plain)))
        steps = self._steps(envelope, ring, route)
        reserve = min(self._max_bytes, header.plain_size) + route.stepwise.memory
        return self._decoding.run(steps, len(body), forward_opened, in_thread=True, reserve=reserve)

    def _forward(self, route: OtlpRoute, batch: Batch, head: Head, ok: Response) -> Answer:
        answer = route.forward(batch, head, ok)
        self._counter.value += 1
        return answer

    def _open(self, envelope: Envelope, ring: KeyRing) -> bytes:
        return content.decode(envelope.header, unseal(envelope, ring, self._now()), self._max_bytes)

    def _steps(self, envelope: Envelope, ring: KeyRing, route: OtlpRoute) -> Steps:
        """Open an envelope and count its items, in a thread."""
        plain = self._open(envelope, ring)
        yield
        if len(plain) < route.stepwise.large:
            return plain, route.check(plain)
        items = yield from route.stepwise.steps(plain)
        return plain, items

    def _check_amount(self, envelope: Envelope) -> None:
        """Refuse what this process would refuse if it could open the envelope, as far as the header shows it."""
        header = envelope.header
        if header.items > self._max_items:
            raise TooLargeError(f"the envelope holds {header.items} items, the most is {self._max_items}")
        if header.plain_size > self._max_bytes:
            raise TooLargeError(f"the envelope holds {header.plain_size} bytes, the most is {self._max_bytes}")
        if not header.encodings and envelope.content_bytes != header.plain_size:
            raise _malformed("its size is not the one in its header")

    def _create(self, path: Path) -> None:
        """Write a file with a first key, and log what senders need to seal to it."""
        from otelwp_agent.licensing.public_keys import encode_base64url  # noqa: PLC0415 - only at the first start
        from otelwp_agent.sealing.key_files import opening_keys_text  # noqa: PLC0415 - the same
        from otelwp_agent.sealing.rotation import new_key  # noqa: PLC0415 - the same
        from otelwp_agent.sealing.suites import SealingSuite  # noqa: PLC0415 - the same

        key = new_key(SealingSuite.X25519, float(int(self._now())))
        try:
            files.make_directory(path.parent)
            files.replace_file(path, opening_keys_text(1, [key]))
        except OSError as error:
            raise StartError(f"{self._name}: sealed.keys: cannot create {path}: {error.strerror}") from error
        public = encode_base64url(key.suite.public_bytes(key.private))
        self._log.warning("sealing key created", file=str(path), key_id=key.key_id, public_key=public)

    def _use(self, text: str) -> Mapping[str, object]:
        from otelwp_agent.sealing.key_files import read_key_ring  # noqa: PLC0415 - only collectors with keys

        self._ring = read_key_ring(text)
        return {"keys": len(self._ring)}


def _check_kind(header: SealedHeader, signal: Signal) -> None:
    """Refuse an envelope that is not a request of this signal."""
    if header.purpose != TRANSPORT or header.content_type != OTLP:
        raise _malformed(f"it is no request: its purpose is {header.purpose!r}, its type {header.content_type!r}")
    if header.signal is not signal:
        of = "no signal" if header.signal is None else header.signal.value
        raise _malformed(f"it holds {of}, but this is the path of {signal.value}")


def _malformed(problem: str) -> SealedError:
    return SealedError(SealedReason.MALFORMED, f"the body is not a valid envelope: {problem}")
