"""Make the keys of a recipient, and replace them: pure functions of the time.

A rotation publishes the new key before senders use it (`lead`), so that every collector has it by then, and keeps the
old one for some time after that (`overlap`), so that what was sealed to it still opens.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from otelwp_agent.sealing.key_ring import OpeningKey
from otelwp_agent.sealing.key_set import SealingKeySet
from otelwp_agent.sealing.recipient import Recipient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otelwp_agent.sealing.suites import SealingSuite

LEAD = 3600.0
"""Seconds from the publication of a key to its first use, by default."""
OVERLAP = 7 * 86400.0
"""Seconds that the previous key opens envelopes after its successor is used, by default."""


def new_key(suite: SealingSuite, not_before: float, not_after: float | None = None) -> OpeningKey:
    """Return a new key; its id begins with the date of its first use."""
    day = time.strftime("%Y%m%d", time.gmtime(not_before))
    return OpeningKey(f"{day}-{secrets.token_hex(4)}", suite, suite.generate(), not_before, not_after)


def rotate(
    keys: Sequence[OpeningKey], new: OpeningKey, now: float, overlap: float = OVERLAP, *, all_suites: bool = False
) -> list[OpeningKey]:
    """Return the keys after `new` was added: those of its suite end `overlap` seconds after its first use.

    With `all_suites`, those of other suites end too. Keys that have ended are removed.
    """
    end = float(int(new.not_before + overlap))
    left = []
    for key in keys:
        if key.not_after is not None and key.not_after <= now:
            continue
        ends = all_suites or key.suite is new.suite
        left.append(replace(key, not_after=end) if ends and (key.not_after is None or key.not_after > end) else key)
    return [*left, new]


def key_set_of(version: int, keys: Iterable[OpeningKey], now: float) -> SealingKeySet:
    """Return the set of the public keys."""
    recipients = [
        Recipient(key.key_id, key.suite, key.suite.public_bytes(key.private), key.not_before, key.not_after)
        for key in keys
    ]
    return SealingKeySet(version, int(now), tuple(recipients))
