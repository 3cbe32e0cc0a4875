"""Process each message of one receiver once: acknowledge those that were accepted before."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

from otelwp_agent.errors import MalformedError, RetryableError
from otelwp_agent.model.message import Message
from otelwp_agent.sealing.metrics import DUPLICATES
from otelwp_agent.sealing.replay_cache import MessageState

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.config import blocks
    from otelwp_agent.sealing.message_memory import MessageMemory
    from otelwp_agent.sealing.replay_cache import Identified
    from otelwp_agent.telemetry.metrics import Registry

MAX_KEY = 128
"""Maximum length of an `Idempotency-Key`."""
MESSAGE_ID_BYTES = 16

Answer = TypeVar("Answer")


class Deduplicator:
    """The messages of one receiver."""

    def __init__(
        self,
        settings: blocks.Deduplication,
        memory: MessageMemory,
        receiver: str,
        registry: Registry,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Remember messages in `memory` for the receiver with this id; `now` returns seconds since 1970."""
        self._receiver = receiver
        self._cache = memory.cache(receiver, settings.remember, settings.max_per_tenant, settings.max_total)
        self._duplicates = registry.counter(DUPLICATES, receiver=receiver)
        self._now = now

    def message(self, tenant: str, identified: Identified) -> Message:
        """Return the message of an envelope's header."""
        return Message(self._receiver, tenant, identified.message_id, identified.time)

    def keyed(self, tenant: str, key: str) -> Message:
        """Return the message of a request with an `Idempotency-Key`; raise `MalformedError` if that is invalid."""
        if not 0 < len(key) <= MAX_KEY:
            raise MalformedError(f"the header Idempotency-Key must have 1 to {MAX_KEY} characters, not {len(key)}")
        id_ = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=MESSAGE_ID_BYTES).digest()
        return Message(self._receiver, tenant, id_, int(self._now() * 1000))

    def process(
        self, message: Message, run: Callable[[], Answer | asyncio.Future[Answer]], duplicate: Answer
    ) -> Answer | asyncio.Future[Answer]:
        """Return the result of `run`, which forwards the message; or `duplicate` if the message was accepted before.

        Raises what `run` raises, and `RetryableError` while the same message is being processed. After a failure, the
        message may be sent again.
        """
        cache, tenant = self._cache, message.tenant
        state = cache.begin(tenant, message, self._now())
        if state is MessageState.ACCEPTED:
            self._duplicates.add()
            return duplicate
        if state is MessageState.PENDING:
            raise RetryableError("the same message is being processed", retry_after=1.0, reason="in_progress")
        try:
            answer = run()
        except BaseException:
            cache.release(tenant, message)
            raise
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(partial(self._ended, message))
        else:
            cache.accept(tenant, message)
        return answer

    def _ended(self, message: Message, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or answer.exception() is None:
            self._cache.accept(message.tenant, message)
        else:
            self._cache.release(message.tenant, message)
