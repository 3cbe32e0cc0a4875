"""Decide which requests reach the admin API: by the `Host` header, and by the credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.admin.problems import ProblemError
from otelwp_agent.limiting.addresses import peer_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog

    from otelwp_agent.admin.exchange import ApiRequest
    from otelwp_agent.admin.identity import Identification, Principal
    from otelwp_agent.limiting.bans import Bans
    from otelwp_agent.transport.local_access import LocalAccess

_CHALLENGE = ("WWW-Authenticate", "Bearer")


class ApiAdmission:
    """Authenticates requests, and bans addresses that fail repeatedly."""

    def __init__(  # noqa: PLR0913, PLR0917 - its parts, each of which is tested alone
        self,
        identification: Identification,
        local: LocalAccess,
        bans: Bans,
        failed: Callable[[], None],
        clock: Callable[[], float],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Call `failed` for each request without a valid credential; `clock` is monotonic, in seconds."""
        self._identification = identification
        self._local = local
        self._bans = bans
        self._failed = failed
        self._clock = clock
        self._log = log

    def check_host(self, request: ApiRequest) -> None:
        """Raise `ProblemError` if a browser may have sent the request for a foreign page."""
        reason = self._local.reason(request.peer, request.method, request.headers)
        if reason:
            raise ProblemError(403, reason)

    async def authenticate(self, request: ApiRequest) -> Principal:
        """Return the sender; raise `ProblemError` 401, or 429 after repeated failures of its address.

        The answer does not say which part of the credential is wrong.
        """
        peer = peer_key(request.peer)
        if seconds := self._bans.banned(peer, self._clock()):
            retry = (("Retry-After", str(int(seconds) + 1)),)
            raise ProblemError(429, "too many requests of this address were not authenticated", headers=retry)
        principal = await self._identification.identify(request.headers)
        if principal is not None:
            return principal
        self._failed()
        if banned := self._bans.failed(peer, self._clock()):
            self._log.warning("admin API: address banned", peer=peer, seconds=banned)
        detail = "authentication is required: send a valid token in `Authorization: Bearer …`"
        raise ProblemError(401, detail, headers=(_CHALLENGE,))
