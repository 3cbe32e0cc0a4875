"""Identify who sends a request to the admin API: an operator by a token, or a tenant by an API key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otelwp_agent.control import api_keys
from otelwp_agent.control.operations.operators import Role, authenticate_operator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otelwp_agent.control.access import ControlAccess
    from otelwp_agent.control.api_keys import Scope

KEY_HEADER = "x-api-key"
_SCHEME = "bearer"


@dataclass(frozen=True, slots=True)
class Principal:
    """The operator or API key that sends a request."""

    name: str
    """For the audit log: `operator:<name>` or `key:<id>`."""
    role: Role | None = None
    """The role of an operator; `None` for an API key."""
    tenant: str = ""
    """The tenant of an API key."""
    scopes: frozenset[str] = frozenset()
    """The scopes of an API key."""

    def permits(self, role: Role, scopes: Iterable[Scope]) -> bool:
        """Return whether it has at least `role`, or one of the `scopes`."""
        if self.role is not None:
            return self.role.includes(role)
        return any(scope.value in self.scopes for scope in scopes)


class Identification:
    """Checks operators' tokens and API keys."""

    def __init__(self, access: ControlAccess, *, now: Callable[[], float] = time.time) -> None:
        """Use the control store of `access`; `now` returns the time in seconds since 1970."""
        self._access = access
        self._now = now

    async def identify(self, headers: Mapping[str, str]) -> Principal | None:
        """Return the sender of a request, or `None` if its credential is missing or invalid.

        If a request has `Authorization`, `X-API-Key` is ignored.

        An operator's token is read from the store, so that a removed operator is refused at once; this raises
        `StoreError` while the store is unavailable. API keys are checked in memory.
        """
        authorization = headers.get("authorization")
        if authorization is None:
            text = headers.get(KEY_HEADER, "")
        else:
            scheme, _, text = authorization.partition(" ")
            if scheme.lower() != _SCHEME:
                return None
        text = text.strip()
        if api_keys.parse(text, api_keys.OPERATOR_TOKEN) is not None:
            return await self._operator(text)
        return self._key(text)

    async def _operator(self, token: str) -> Principal | None:
        hasher = self._access.directory.hasher
        operator = await self._access.store.read(lambda connection: authenticate_operator(connection, hasher, token))
        return None if operator is None else Principal(f"operator:{operator.name}", operator.role)

    def _key(self, text: str) -> Principal | None:
        now = self._now()
        id_, key, _ = self._access.directory.check(text, now)
        if key is None:
            return None
        self._access.used.note(id_, now)
        # The key of a suspended tenant permits nothing.
        return Principal(f"key:{id_}", None, key.tenant.id, key.scopes if key.tenant.active else frozenset())
