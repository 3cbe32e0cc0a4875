"""`LicenseWatch`: one configured licence over time: read, judged by the clock, renewed, and kept in the state file.

Invariants:

* No failure of the licence server changes the terms; only signed terms of the same licence replace them.
* The terms in use are the ones that were issued last, of the configured licence and the stored renewal.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from otelwp_agent.errors import StartError
from otelwp_agent.licensing.decision import DAY, lapsed, newest, with_license
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.online import RefreshError, renew
from otelwp_agent.licensing.public_keys import load_keys
from otelwp_agent.licensing.signatures import LicenseError, verify_license
from otelwp_agent.licensing.state_file import LicenseState, LicenseStateFile
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport.watched_file import WatchedFile

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import structlog

    from otelwp_agent.config.license import LicenseConfig
    from otelwp_agent.licensing.entitlement import Entitlement
    from otelwp_agent.licensing.license import License
    from otelwp_agent.licensing.metrics import LicenseMetrics
    from otelwp_agent.licensing.trusted_clock import TrustedClock

START_PATIENCE = 5.0
"""Seconds for which the start waits for the licence server, if the agent would have the free tier without it."""
REFRESH_EVERY = DAY
"""Longest time between two renewals; the shortest is a fifth less."""
RETRY_FIRST, RETRY_MOST = 300.0, 6 * 3600.0
"""Seconds before a failed renewal is repeated: the first time, and at most."""
SOON = 300.0
"""Longest time before the first renewal after a start, so that many agents do not ask at the same time."""
STORE_MARK_EVERY = 3600.0
"""Seconds between two writes of the high-water mark."""


class LicenseWatch:
    """Watches one licence; `changed` is called when the terms may have changed. Use it on the event loop only."""

    def __init__(  # noqa: PLR0913 - the parts of the agent that it uses
        self,
        settings: LicenseConfig,
        state_path: str | None,
        *,
        clock: TrustedClock,
        ask: Callable[[str, str], Awaitable[str]] | None,
        metrics: LicenseMetrics,
        log: structlog.typing.FilteringBoundLogger,
        random: Callable[[], float],
        changed: Callable[[], None],
        required: bool = False,
    ) -> None:
        """Read nothing yet. `ask` asks the licence server, if there is one; `random` returns numbers from 0 to 1."""
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._metrics = metrics
        self._log = log
        self._random = random
        self._changed = changed
        self._required = required
        self._keys: Mapping[str, str] = {}
        self._file = (
            None
            if settings.file is None
            else WatchedFile(settings.file, self._use_text, name="service.license", log=log)
        )
        self._text = ""
        self._installed: License | None = None
        """The configured licence, `None` if it cannot be used."""
        self._renewal: License | None = None
        self._renewal_text = ""
        self._problem = "the licence has not been read"
        self._state = LicenseStateFile(state_path)
        self._stored_at = -STORE_MARK_EVERY
        self._refreshed = 0.0
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.refresh_error = ""
        """Why the last renewal failed, "" if it succeeded."""

    @property
    def terms(self) -> License | None:
        """The terms in use, or `None` if the licence cannot be used."""
        return None if self._installed is None else newest(self._installed, self._renewal)

    @property
    def refreshed(self) -> float:
        """When the licence server answered last, in seconds since 1970; 0 for never."""
        return self._refreshed

    def entitlement(self) -> Entitlement:
        """Return what the licence permits now."""
        terms = self.terms
        if terms is None:
            return lapsed(f"the licence cannot be used: {self._problem}")
        return with_license(terms, self._clock.now(), self._settings.grace)

    async def start(self) -> None:
        """Read the state, the public keys and the licence, and renew it if that is needed."""
        state = self._read_state()
        try:
            self._keys = load_keys(self._settings.public_keys, required=self._required)
        except ValueError as error:
            self._problem = f"public_keys: {error}"
            self._log.error("public keys of licences not read", error=str(error))
            return
        self._clock.at_least(state.mark)
        self._refreshed = state.refreshed
        self._read_license()
        self._restore(state)
        if self._ask is None:
            return
        delay = max(0.0, self._refreshed + REFRESH_EVERY - self._clock.now())
        if self._installed is not None and self.entitlement().basis in (Basis.LAPSED, Basis.GRACE):
            try:
                async with asyncio.timeout(START_PATIENCE):
                    delay = await self._refresh(0)
            except TimeoutError:
                self._failed(RefreshError("timeout", f"no answer within {START_PATIENCE:g} s"))
                delay = RETRY_FIRST
        self._task = spawn(self._refresh_regularly(min(delay, REFRESH_EVERY)), name="renew the licence")

    async def stop(self) -> None:
        """Stop renewing, and store the state."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait([task])
        self._store(sync=False)

    def tick(self) -> None:
        """Read a changed file again, and store the high-water mark from time to time."""
        if self._file is not None:
            self._file.check()
        if self._clock.now() - self._stored_at >= STORE_MARK_EVERY:
            self._store(sync=False)

    def renew(self) -> None:
        """Ask the licence server in the background now, instead of at the next regular time."""
        self._wanted.set()

    # -- what is configured

    def _read_license(self) -> None:
        try:
            if self._file is not None:
                self._file.read()
            elif self._settings.key is not None:
                self._use_text(self._settings.key.get_secret_value())
        except (ValueError, StartError) as error:
            self._problem = str(error)

    def _use_text(self, text: str) -> Mapping[str, object]:
        """Use a licence; raise `LicenseError` and keep the old one if it is not valid."""
        try:
            terms = verify_license(text, self._keys)
        except LicenseError as error:
            self._metrics.rejected(error.reason)
            raise
        self._text, self._installed = text.strip(), terms
        self._clock.at_least(terms.iat)
        self._changed()
        return {"license": terms.jti, "tier": terms.tier, "expires": terms.expires.isoformat()}

    # -- what is stored

    def _read_state(self) -> LicenseState:
        try:
            return self._state.read()
        except ValueError as error:
            self._log.warning("state of the licence not read", error=str(error))
            return LicenseState()

    def _restore(self, state: LicenseState) -> None:
        """Use the stored renewal, if it belongs to the configured licence."""
        if not state.license or self._installed is None:
            return
        try:
            terms = verify_license(state.license, self._keys)
        except LicenseError as error:
            self._metrics.rejected(error.reason)
            self._log.warning("stored renewal of the licence not used", error=str(error))
            return
        if terms.jti == self._installed.jti:
            self._renewal, self._renewal_text = terms, state.license
            self._clock.at_least(terms.iat)
        else:
            self._refreshed = 0.0

    def _store(self, *, sync: bool) -> None:
        now = self._stored_at = self._clock.now()
        try:
            self._state.write(LicenseState(self._renewal_text, now, self._refreshed), sync=sync)
        except OSError as error:
            self._metrics.not_stored.add()
            self._log.warning("state of the licence not stored", error=error.strerror or str(error))

    # -- renewals

    async def _refresh_regularly(self, delay: float) -> None:
        delay = max(delay, self._random() * SOON)
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wanted.wait()
            self._wanted.clear()
            delay = await self._refresh(failures)
            failures = failures + 1 if self.refresh_error else 0

    async def _refresh(self, failures: int) -> float:
        """Ask the server once; return the seconds until the next time. `failures` is the number of failures before."""
        installed = self._installed
        if installed is None or self._ask is None:
            return RETRY_FIRST  # the file may be replaced by a valid one
        try:
            text, terms = await renew(self._ask, self._text, installed, self._keys, secrets.token_urlsafe(16))
        except RefreshError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug ends neither the start of the agent nor the renewals
            self._log.exception("licence not renewed because of a bug; its terms are unchanged")
            self._failed(RefreshError("internal", f"{type(error).__name__}: {error}"))
        else:
            self._renewed(text, terms)
        if self.refresh_error:
            return min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(failures, 16)) * (0.5 + self._random() / 2)
        lapsed_now = self.entitlement().basis is Basis.LAPSED  # it may be restored
        return (RETRY_MOST if lapsed_now else REFRESH_EVERY) * (0.8 + 0.2 * self._random())

    def _failed(self, error: RefreshError) -> None:
        self._metrics.refresh_failed(error.reason)
        if str(error) != self.refresh_error:
            self._log.warning("licence not renewed; its terms are unchanged", reason=error.reason, error=str(error))
        self.refresh_error = str(error)

    def _renewed(self, text: str, terms: License) -> None:
        self._renewal, self._renewal_text = terms, text
        self._clock.set(terms.iat)
        self._refreshed = self._clock.now()
        self._metrics.refreshes.add()
        if self.refresh_error:
            self._log.info("licence renewed again", license=terms.jti)
        self.refresh_error = ""
        self._store(sync=True)
        self._changed()
