"""Handle refused envelopes: refresh what the collector names, seal the batch again, and send it again.

A collector answers a refused envelope with a problem (RFC 9457) whose member `reason` is a value of `SealedReason`. Any
of them may be an error on the way, because the header of an envelope is read before it is authenticated. So a refused
envelope is sent again at once, a few times.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import orjson

from otelwp_agent.errors import ConsumeError, PermanentError, RetryableError
from otelwp_agent.sealing.errors import SealedReason
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.http_connection import ClientResponse

TRIES = 3
"""Number of times that one attempt sends an envelope that is refused."""
OLD = 60.0
"""Age in seconds from which on an envelope is sealed again before it is sent; it is fresh for five times as long."""

_PROBLEM = "application/problem+json"
_REASONS = frozenset(reason.value for reason in SealedReason)
_KEYS = frozenset({SealedReason.UNKNOWN_KEY.value, SealedReason.WRONG_SUITE.value, SealedReason.ALTERED.value})
"""Reasons for which other keys may help."""
_MAY_PASS = frozenset({SealedReason.UNKNOWN_KEY.value, SealedReason.WRONG_SUITE.value, SealedReason.STALE.value})
"""Reasons that the operator of either side can remove, by publishing keys or setting a clock."""

REFUSED = Instrument(
    "otelwp_managed_refused_envelopes",
    "Envelopes that the managed collector has refused, by its reason.",
    labels=("exporter", "reason"),
)
RESEALED = Instrument(
    "otelwp_managed_resealed_batches",
    "Batches sealed again because their envelope was old or refused.",
    labels=("exporter",),
)
INSTRUMENTS = (REFUSED, RESEALED)


def refusal_of(response: ClientResponse) -> tuple[str, str]:
    """Return the reason for which an envelope was refused, and the explanation; empty if it was not."""
    if not response.headers.get("content-type", "").startswith(_PROBLEM):
        return "", ""
    try:
        problem = orjson.loads(response.body)
        reason, detail = problem["reason"], problem.get("detail", "")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "", ""
    return (reason, str(detail)) if isinstance(reason, str) and reason in _REASONS else ("", "")


class Resealer:
    """Seals the batches of one exporter again."""

    def __init__(self, context: Context, now: Callable[[], float] = time.time) -> None:
        """Count for the exporter of `context`; `now` returns seconds since 1970."""
        self._registry = context.registry
        self._exporter = str(context.id)
        self._log = context.log
        self._now = now
        self._refused_log = LogLimit(context.clock)
        self._resealed = context.registry.counter(RESEALED, exporter=self._exporter)

    async def current(self, batch: Batch) -> bytes:
        """Return the envelope of a batch; sealed again if it is old and this agent has its content."""
        content = batch.resealable
        if content is None:
            return batch.body
        if self._now() - content.sealed_at < OLD:
            return content.envelope
        self._resealed.add()
        return await content.seal_again(refresh=False)

    async def after(self, batch: Batch, reason: str, detail: str) -> bytes:
        """Return the envelope to send after one was refused for `reason`."""
        self._registry.counter(REFUSED, exporter=self._exporter, reason=reason).add()
        if times := self._refused_log.take():
            self._log.warning("envelope refused", reason=reason, detail=detail[:200], times=times)
        content = batch.resealable
        if content is None:
            return batch.body
        self._resealed.add()
        return await content.seal_again(refresh=reason in _KEYS)


def error_of(batch: Batch, reason: str, detail: str) -> ConsumeError:
    """Return the error for a batch whose envelope was refused in all tries."""
    message = f"the collector refuses the envelope ({reason}): {detail[:200]}"
    if reason in _MAY_PASS and (batch.resealable is not None or reason != SealedReason.STALE):
        return RetryableError(message, reason=f"sealed_{reason}")
    return PermanentError(message, reason=f"sealed_{reason}")
