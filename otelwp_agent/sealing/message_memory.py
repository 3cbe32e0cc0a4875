"""Remember accepted messages in all receivers of a process, across reloads, and with a journal across restarts.

The journal writes the id of a message before its request, and all remembered ids at the start of each segment. So after
a crash, a message is known if, and only if, its request is in the journal or was in it before.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

from otelwp_agent.sealing.replay_cache import ReplayCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otelwp_agent.model.message import Message

MessageRow = tuple[str, str, str]
"""Receiver, tenant, and its messages: hexadecimal, 16 bytes of id and 8 bytes of time (big-endian) each."""

MAX_AGE = 7 * 86_400.0
"""Seconds after which a message is not restored, also for a receiver that has been removed."""
_MESSAGE = struct.Struct(">16sQ")


def rows_of(messages: Iterable[tuple[str, str, bytes, int]]) -> list[MessageRow]:
    """Return messages (receiver, tenant, id, time in milliseconds) in the form in which the journal writes them."""
    packed: dict[tuple[str, str], bytearray] = {}
    for receiver, tenant, message_id, at in messages:
        packed.setdefault((receiver, tenant), bytearray()).extend(_MESSAGE.pack(message_id, at))
    return [(receiver, tenant, data.hex()) for (receiver, tenant), data in packed.items()]


def row_of_message(message: Message) -> MessageRow:
    """Return one message in the same form."""
    return message.receiver, message.tenant, _MESSAGE.pack(message.message_id, message.time).hex()


class MessageMemory:
    """The ids of accepted messages by receiver. Use it from the event loop's thread alone."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """Start empty; `now` returns seconds since 1970."""
        self._now = now
        self._caches: dict[str, ReplayCache] = {}
        self._restored: dict[str, list[tuple[str, bytes, int]]] = {}
        """Messages from a journal, of receivers that have not requested their cache yet."""

    def __bool__(self) -> bool:
        """Return whether anything has to be written to a journal."""
        return bool(self._caches or self._restored)

    def cache(self, receiver: str, keep: float, per_tenant: int, total: int) -> ReplayCache:
        """Return the cache of a receiver, with these limits; an earlier one, with other limits, gives it its ids."""
        old = self._caches.get(receiver)
        if old is not None and old.limits == (keep, per_tenant, total):
            return old
        cache = self._caches[receiver] = ReplayCache(keep, per_tenant, total)
        known = self._restored.pop(receiver, []) if old is None else list(old.accepted())
        for tenant, message_id, at in sorted(known, key=lambda each: each[2]):
            cache.restore(tenant, message_id, at)
        return cache

    def accept(self, message: Message) -> None:
        """Note that a message is accepted: its request is on disk."""
        cache = self._caches.get(message.receiver)
        if cache is not None:
            cache.accept(message.tenant, message)

    def rows(self) -> list[MessageRow]:
        """Return all accepted messages."""
        return rows_of(
            (receiver, *message)
            for of in (
                {receiver: cache.accepted() for receiver, cache in self._caches.items()},
                self._restored,
            )
            for receiver, messages in of.items()
            for message in messages
        )

    def restore(self, rows: Iterable[MessageRow]) -> None:
        """Add the messages that a journal has; call it before anything is received."""
        for receiver, tenant, data in rows:
            oldest = (self._now() - MAX_AGE) * 1000
            messages = [each for each in _MESSAGE.iter_unpack(bytes.fromhex(data)) if each[1] > oldest]
            cache = self._caches.get(receiver)
            if cache is None:
                self._restored.setdefault(receiver, []).extend([(tenant, *message) for message in messages])
                continue
            for message_id, at in messages:
                cache.restore(tenant, message_id, at)
