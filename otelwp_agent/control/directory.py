"""Tenants, plans and API keys in memory, for the path of requests.

A `Directory` is immutable. It is compact: a key is one `bytes` object of 45 bytes, which the garbage collector does not
visit. `TenantDirectory` holds the current one and is what extensions use.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from otelwp_agent.control import api_keys
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.tier import Tier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otelwp_agent.control.api_keys import Hasher

_PACKED = struct.Struct("<32sdIB")
"""Hash, time of expiry (seconds since 1970), number of the tenant, bits of the scopes."""
PACKED_SIZE = _PACKED.size
"""Bytes of a packed key."""

_ID = slice(len(api_keys.API_KEY), len(api_keys.API_KEY) + api_keys.ID_LENGTH)
"""The place of the id in an API key."""
_SCOPES = {scope: 1 << position for position, scope in enumerate(Scope)}
_SCOPE_SETS = tuple(
    frozenset(scope.value for scope, bit in _SCOPES.items() if bits & bit) for bits in range(1 << len(_SCOPES))
)
NOTHING: MappingProxyType[str, Any] = MappingProxyType({})
"""Shared by all entries without attributes or limits."""


class TenantEntry(NamedTuple):
    """A tenant in a directory."""

    id: str
    plan: str
    active: bool
    attributes: Mapping[str, str] = NOTHING


class PlanEntry(NamedTuple):
    """A plan in a directory."""

    tier: str
    limits: Mapping[str, float]
    retention_days: int | None


class KeyEntry(NamedTuple):
    """An API key in a directory."""

    hash: bytes
    expires_at: float
    tenant: TenantEntry
    scopes: frozenset[str]


_TIERS = {tier.value: tier for tier in Tier}
NO_PLAN = PlanEntry("free", NOTHING, None)


@dataclass(frozen=True, slots=True)
class Directory:
    """A consistent state of the store: keys that are not revoked, all tenants and plans."""

    version: int = 0
    """The store's change counter."""
    plans: Mapping[str, PlanEntry] = field(default_factory=dict)
    tenants: Sequence[TenantEntry] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Position of each tenant in `tenants`."""
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Packed keys by id."""

    def key(self, id_: str) -> KeyEntry | None:
        """Return the key with this id, or `None` if it is unknown or revoked. An expired key is returned."""
        packed = self.keys.get(id_)
        if packed is None:
            return None
        hash_, expires_at, number, scopes = _PACKED.unpack(packed)
        return KeyEntry(hash_, expires_at, self.tenants[number], _SCOPE_SETS[scopes])

    def tenant(self, id_: str) -> TenantEntry | None:
        """Return a tenant, or `None` if it is unknown."""
        number = self.numbers.get(id_)
        return None if number is None else self.tenants[number]

    def plan(self, name: str) -> PlanEntry:
        """Return a plan. A tenant always has one that exists, except while the store is changed by hand."""
        return self.plans.get(name, NO_PLAN)


def scope_bits(scopes: Iterable[str]) -> int:
    """Return the packed form of scopes. Unknown scopes permit nothing."""
    return sum(bit for scope, bit in _SCOPES.items() if scope.value in scopes)


def pack_key(hash_: bytes, expires_at: float | None, tenant: int, bits: int) -> bytes:
    """Return the packed form of a key; `tenant` is the number of its tenant, `bits` are its scopes."""
    return _PACKED.pack(hash_, math.inf if expires_at is None else expires_at, tenant, bits)


class CheckedKey(NamedTuple):
    """The result of the check of an API key: its public `id`, and its `entry`, or why it is refused."""

    id: str = ""
    entry: KeyEntry | None = None
    refusal: str = ""


class TenantDirectory:
    """The current directory, which a refresher replaces after each change of the store.

    It may be read on the event loop at any time; it stays valid while the store is unreachable.
    """

    def __init__(self, hasher: Hasher) -> None:
        """Start empty; `hasher` checks the keys of the store."""
        self.hasher = hasher
        self.current = Directory()
        self.version = 0
        """Changes at each change of the directory."""
        self.error = ""
        """Why the last refresh failed, "" if it succeeded."""
        self.refreshed_at = -math.inf
        """Time of the last refresh that succeeded, from the monotonic clock."""

    def check(self, text: str, now: float) -> CheckedKey:
        """Check an API key at the time `now` (seconds since 1970). Its tenant and its scopes are not checked."""
        id_ = text[_ID]
        entry = self.current.key(id_)
        # The hash covers the whole text. Its form is checked only to say why it is refused.
        if entry is None or not self.hasher.matches(text, entry.hash):
            if api_keys.parse(text) is None:
                return CheckedKey(refusal="malformed" if text else "missing")
            return CheckedKey(id_, refusal="unknown" if entry is None else "wrong")
        return CheckedKey(id_, refusal="expired") if now >= entry.expires_at else CheckedKey(id_, entry)

    def tier(self, tenant: str) -> Tier | None:
        """Return the tier of a tenant's plan, or `None` if the tenant is unknown."""
        entry = self.current.tenant(tenant)
        return None if entry is None else _TIERS.get(self.current.plan(entry.plan).tier, Tier.FREE)

    def replace(self, directory: Directory) -> None:
        """Use `directory` from now on."""
        self.current = directory
        self.version += 1
