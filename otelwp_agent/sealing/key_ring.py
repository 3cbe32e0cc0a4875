"""Private keys that open envelopes, by key id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otelwp_agent.sealing.errors import SealedError, SealedReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otelwp_agent.sealing.suites import SealingSuite

SKEW = 300.0
"""Seconds that the clock of a sender may be ahead, so that it uses a key before its time."""


@dataclass(frozen=True, slots=True)
class OpeningKey:
    """A private key and the time in which it opens envelopes, in seconds since 1970.

    Senders use it from `not_before` on. `not_after` is the key's end; `None` means that it has none. The private key is
    not part of the representation.
    """

    key_id: str
    suite: SealingSuite
    private: bytes = field(repr=False)
    not_before: float = 0.0
    not_after: float | None = None
    loaded: Any = field(init=False, repr=False, compare=False)
    """The key as `SealingSuite.decrypt` takes it."""

    def __post_init__(self) -> None:
        """Load the private key; raise `BadKeyError`."""
        object.__setattr__(self, "loaded", self.suite.private_key(self.private))


class KeyRing:
    """The private keys of a recipient. Immutable: after a rotation, use a new ring."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[OpeningKey]) -> None:
        """Hold `keys`; a later one replaces an earlier one with the same key id."""
        self._keys = {key.key_id: key for key in keys}

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def __iter__(self) -> Iterator[OpeningKey]:
        """Iterate over the keys."""
        return iter(self._keys.values())

    def find(self, key_id: str, now: float) -> OpeningKey:
        """Return the key with this id; raise `SealedError` (`unknown_key`) if there is none that is valid at `now`."""
        key = self._keys.get(key_id)
        if key is None:
            raise SealedError(SealedReason.UNKNOWN_KEY, f"no key has the id {key_id!r}: refresh the key set")
        if key.not_after is not None and now >= key.not_after:
            raise SealedError(SealedReason.UNKNOWN_KEY, f"the key {key_id!r} has ended: refresh the key set")
        if now < key.not_before - SKEW:
            raise SealedError(SealedReason.UNKNOWN_KEY, f"the key {key_id!r} is not valid yet: refresh the key set")
        return key
