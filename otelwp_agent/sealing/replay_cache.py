"""Remember the ids of accepted messages, so that a message is processed once.

Invariant: while an envelope is fresh, the cache either has its id, or refuses all envelopes of its tenant that are not
newer than the ids it had to forget (`_Ids.floor`). So an accepted envelope is never accepted again, whatever the load.
Only its sender, who can seal the message again with a newer time, could have a forgotten message processed twice.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.sealing.errors import SealedError, SealedReason
from otelwp_agent.sealing.freshness import WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_TENANT = 20_000
"""Message ids of one tenant, by default: 33 messages a second for ten minutes."""
TOTAL = 200_000
"""Message ids of all tenants, by default: about 40 MB."""

_COMPARED = 8
"""Tenants that one call compares to find one with many ids."""


class Identified(Protocol):
    """The id of a message: the header of an envelope, or a request with an id."""

    @property
    def message_id(self) -> bytes:
        """Its id, 16 bytes."""

    @property
    def time(self) -> int:
        """When it was sent, in milliseconds since 1970."""


class MessageState(Enum):
    """State of a message id."""

    NEW = "new"
    """The caller must process the message, and call `accept` or `release`."""
    PENDING = "pending"
    """The message is being processed: the sender must retry later."""
    ACCEPTED = "accepted"
    """The message was accepted before: acknowledge it, and do not process it."""


class _Ids:
    """The message ids of one tenant, in the order of their arrival."""

    __slots__ = ("floor", "ids")

    def __init__(self) -> None:
        self.ids: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        """By id: the latest time of its envelopes, and whether the message was accepted."""
        self.floor = 0.0
        """Envelopes with this time or an earlier one are refused if their id is not there."""


class ReplayCache:
    """Message ids by tenant, with a limit for each tenant and for all.

    `keep` is how many seconds an id is kept after the time of its message. It must be at least the time for which a
    message is fresh; what is longer lets a sender repeat a message with a newer time.
    """

    def __init__(self, keep: float = 2 * WINDOW, per_tenant: int = PER_TENANT, total: int = TOTAL) -> None:
        """Hold no ids yet."""
        self.limits = keep, per_tenant, total
        self._keep = keep
        self._per_tenant = per_tenant
        self._total = total
        self._tenants: OrderedDict[str, _Ids] = OrderedDict()
        self._largest = _Ids()
        self._count = 0

    def __len__(self) -> int:
        """Return the number of ids."""
        return self._count

    def begin(self, tenant: str, header: Identified, now: float) -> MessageState:
        """Return the state of the message, and note it as pending if it is new; `now` is in seconds since 1970.

        Call it when the envelope has been opened, because only then the message id is authenticated. Raises
        `SealedError` (`stale`) if it cannot be known any more whether the message was accepted.
        """
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Ids()
        self._expire(known, now)
        time = header.time / 1000
        entry = known.ids.get(header.message_id)
        if entry is not None:
            latest, accepted = entry
            if time > latest:  # sealed again: remember the id as long as the newer envelope is fresh
                known.ids[header.message_id] = time, accepted
                known.ids.move_to_end(header.message_id)
            return MessageState.ACCEPTED if accepted else MessageState.PENDING
        if time <= known.floor:
            message = "too many messages were accepted since the envelope was sealed: seal it again"
            raise SealedError(SealedReason.STALE, message)
        self._add(known, header.message_id, time, accepted=False)
        return MessageState.NEW

    def _add(self, known: _Ids, message_id: bytes, time: float, *, accepted: bool) -> None:
        """Add an id, and forget the oldest one of a tenant if there are too many."""
        known.ids[message_id] = time, accepted
        self._count += 1
        if len(known.ids) > len(self._largest.ids):
            self._largest = known
        if len(known.ids) > self._per_tenant:
            self._forget_oldest(known)
        elif self._count > self._total:
            large = self._large()
            self._forget_oldest(large if large.ids else known)

    def accept(self, tenant: str, header: Identified) -> None:
        """Note that the message was accepted."""
        known = self._tenants.get(tenant)
        if known is not None and (entry := known.ids.get(header.message_id)) is not None:
            known.ids[header.message_id] = entry[0], True

    def accepted(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield the accepted messages: tenant, id and time in milliseconds since 1970."""
        for tenant, known in self._tenants.items():
            for message_id, (time, accepted) in known.ids.items():
                if accepted:
                    yield tenant, message_id, round(time * 1000)

    def restore(self, tenant: str, message_id: bytes, time: int) -> None:
        """Note a message that was accepted earlier; call it in the order of their times, before `begin`."""
        known = self._tenants.setdefault(tenant, _Ids())
        if known.ids.pop(message_id, None) is not None:
            self._count -= 1
        self._add(known, message_id, time / 1000, accepted=True)
        if len(known.ids) == self._per_tenant:  # others may have been forgotten before
            known.floor = max(known.floor, next(iter(known.ids.values()))[0])

    def release(self, tenant: str, header: Identified) -> None:
        """Forget a message that was refused after `begin`: the sender may send it again."""
        known = self._tenants.get(tenant)
        if known is not None and known.ids.pop(header.message_id, None) is not None:
            self._count -= 1
            if not known.ids and not known.floor:
                del self._tenants[tenant]

    def expire(self, now: float) -> None:
        """Forget what is old, of all tenants. Call it now and then."""
        for tenant, known in [*self._tenants.items()]:
            self._expire(known, now)
            if not known.ids and known.floor <= now - self._keep:
                del self._tenants[tenant]

    def _large(self) -> _Ids:
        """Return the ids of a tenant with many of them: the largest known, compared with some others in turn."""
        for name in [*islice(self._tenants, _COMPARED)]:
            self._tenants.move_to_end(name)
            if len(self._tenants[name].ids) > len(self._largest.ids):
                self._largest = self._tenants[name]
        return self._largest

    def _expire(self, known: _Ids, now: float) -> None:
        """Forget the ids of messages that are no longer fresh."""
        ids = known.ids
        while ids:
            time, accepted = next(iter(ids.values()))
            if time + self._keep > now or not accepted:
                return
            ids.popitem(last=False)
            self._count -= 1

    def _forget_oldest(self, known: _Ids) -> None:
        """Forget the oldest id; from now on refuse what may be that message."""
        _, (time, _) = known.ids.popitem(last=False)
        self._count -= 1
        known.floor = max(known.floor, time)
