"""`Recipient`: a public key to seal to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otelwp_agent.sealing.suites import SealingSuite


@dataclass(frozen=True, slots=True)
class Recipient:
    """A public key, and the time in which it is valid, in seconds since 1970.

    Senders may seal to it from `not_before` on. At `not_after`, its envelopes no longer open; `None` means never.
    """

    key_id: str
    suite: SealingSuite
    public: bytes
    not_before: float = 0.0
    not_after: float | None = None
    loaded: Any = field(init=False, repr=False, compare=False)
    """The key as `SealingSuite.encrypt` takes it."""

    def __post_init__(self) -> None:
        """Load the public key; raise `BadKeyError`."""
        object.__setattr__(self, "loaded", self.suite.public_key(self.public))
