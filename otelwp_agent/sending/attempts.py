"""One attempt to send a batch: call the exporter's `export` with a timeout, and learn from the result.

Every failure is raised as `RetryableError` or `PermanentError`. The circuit breaker records whether the backend
answers, the limit of concurrency how fast. Both ignore the failures of a tenant while other tenants have success: its
own backend or its own limit there is the cause, and only its own batches wait for their retries.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.config.types import format_duration
from otelwp_agent.errors import Overloaded, PermanentError, RetryableError
from otelwp_agent.sending.breaker import Permit
from otelwp_agent.sending.timeouts import Timeouts

if TYPE_CHECKING:
    from otelwp_agent.component import Exporter
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.sending.breaker import Breaker
    from otelwp_agent.sending.concurrency import Concurrency
    from otelwp_agent.sending.metrics import ExporterMetrics
    from otelwp_agent.sending.watchers import Watchers


EVIDENCE = 1.0
"""Seconds before the start of a failed attempt in which a success of another tenant proves that the backend works."""


class Successes:
    """When the attempts of two different tenants succeeded last. Batches without a tenant count as those of one."""

    __slots__ = ("_other_at", "_tenant", "_tenant_at")

    def __init__(self) -> None:
        """Start without a success."""
        self._tenant = ""
        self._tenant_at = self._other_at = float("-inf")

    def add(self, tenant: str, at: float) -> None:
        """Record a success of a tenant."""
        if tenant != self._tenant:
            self._other_at = self._tenant_at
            self._tenant = tenant
        self._tenant_at = at

    def of_another(self, tenant: str) -> float:
        """Return when an attempt of another tenant succeeded last."""
        return self._tenant_at if tenant != self._tenant else self._other_at


class ExporterBugError(PermanentError):
    """The exporter raised an exception that it must not raise: a bug, which says nothing about the backend."""

    reason = "internal_error"


class Attempts:
    """The attempts of one sender."""

    def __init__(  # noqa: PLR0913 - the parts of one sender
        self,
        exporter: Exporter,
        metrics: ExporterMetrics,
        breaker: Breaker,
        concurrency: Concurrency,
        timeout: float,
        *,
        watchers: Watchers,
    ) -> None:
        """Send with `exporter`; one attempt takes at most `timeout` seconds (0: no limit).

        Reports successes to `watchers`; `Delivery` reports failures to them.
        """
        self._exporter = exporter
        self._clock = exporter.context.clock
        self._metrics = metrics
        self._breaker = breaker
        self._concurrency = concurrency
        self._seconds = timeout
        self._timeouts = Timeouts(timeout)
        self._successes = Successes()
        self._watchers = watchers

    async def once(self, batch: Batch, permit: Permit) -> int:
        """Send the batch once, with `permit`; return the number of rejected items. Raises only `ConsumeError`."""
        concurrency = self._concurrency
        busy = concurrency.is_busy(batch.origin.tenant)
        started = self._clock()
        try:
            rejected = await self._export(batch)
        except BaseException as error:
            self._record_failure(error, permit, started, batch.origin.tenant)
            raise
        ended = self._clock()
        self._metrics.attempted(ended - started)
        self._successes.add(batch.origin.tenant, ended)
        concurrency.succeeded(started, ended, len(batch.body), busy=busy)
        if not self._breaker.calm:
            self._breaker.answered()
        if self._watchers:
            self._watchers.delivered(ended - started)
        return rejected

    def _record_failure(self, error: BaseException, permit: Permit, started: float, tenant: str) -> None:
        """Update breaker and concurrency after a failure."""
        breaker, ended = self._breaker, self._clock()
        self._metrics.attempted(ended - started)
        if isinstance(error, RetryableError):
            if tenant and self._exporter.throttled_by_tenant and isinstance(error, Overloaded):
                breaker.answered()  # the backend works, and `Delivery` pauses this tenant
                return
            if tenant and permit is not Permit.PROBE and self._successes.of_another(tenant) >= started - EVIDENCE:
                return
            self._concurrency.failed(started, ended)
            if isinstance(error, Overloaded):
                breaker.throttled(ended, error.retry_after)
            else:
                breaker.failed(permit, ended, error.retry_after)
        elif isinstance(error, PermanentError) and not isinstance(error, ExporterBugError):
            breaker.answered()
        else:
            breaker.released(permit, ended)

    def close(self) -> None:
        """Stop the timeouts."""
        self._timeouts.close()

    async def _export(self, batch: Batch) -> int:
        timeouts = self._timeouts
        task = timeouts.begin()
        try:
            return await self._exporter.export(batch) or 0  # third parties may return None
        except (PermanentError, RetryableError):
            raise
        except TimeoutError as error:
            raise RetryableError("no answer in time", reason="timeout") from error
        except OSError as error:
            raise RetryableError(str(error), reason="os_error") from error
        except asyncio.CancelledError as error:
            late = timeouts.is_late(task)
            if task.cancelling() > late:  # the dispatcher stops this task
                raise
            if late:
                raise RetryableError(f"no answer within {format_duration(self._seconds)}", reason="timeout") from error
            raise RetryableError("the exporter cancelled the attempt", reason="cancelled") from error
        except Exception as error:
            self._metrics.exporter_failed(error)
            raise ExporterBugError(f"a bug in the exporter: {error!r}") from error
        finally:
            timeouts.end(task)
