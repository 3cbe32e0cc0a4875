"""Refuse envelopes of another tenant, and those whose time is too far from the recipient's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.sealing.errors import SealedError, SealedReason

if TYPE_CHECKING:
    from otelwp_agent.sealing.envelope import SealedHeader

WINDOW = 300.0
"""Seconds that the clocks of sender and recipient may differ, with the time on the way."""


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old an envelope may be, and how far in the future its time may be, in seconds."""

    past: float = WINDOW
    future: float = WINDOW

    def check(self, header: SealedHeader, now: float) -> None:
        """Raise `SealedError` (`stale`) if the time of the header is not near `now`, in seconds since 1970."""
        age = now - header.time / 1000
        if age > self.past:
            message = f"the envelope is {age:.0f} s old, the most is {self.past:.0f} s: seal it again, or set the clock"
            raise SealedError(SealedReason.STALE, message)
        if -age > self.future:
            message = f"the time of the envelope is {-age:.0f} s in the future, the most is {self.future:.0f} s: "
            raise SealedError(SealedReason.STALE, message + "set the clock of the sender")


def check_tenant(header: SealedHeader, tenant: str) -> None:
    """Raise `SealedError` (`other_tenant`) if the customer of the header is not the `tenant` of the credential."""
    if header.customer != tenant:
        message = "the customer of the envelope is not the tenant of the credential that sent it: check `customer_id`"
        raise SealedError(SealedReason.OTHER_TENANT, message)
