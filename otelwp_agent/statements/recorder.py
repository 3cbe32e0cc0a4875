"""Collect the figures of all tenants, make their statements each hour, and save both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from otelwp_agent.licensing.public_keys import key_id
from otelwp_agent.licensing.signatures import public_text, read_private_key
from otelwp_agent.statements.accounts import StatementAccounts
from otelwp_agent.statements.signing import digest, sign_statement
from otelwp_agent.statements.store import StatementStore, StoredStatement
from otelwp_agent.storage import files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otelwp_agent.model.deliveries import Deliveries
    from otelwp_agent.model.ledgers import Ledgers

_MOST_KEY_BYTES = 2**14
HOUR = 3600.0
_SLICE = 50
"""Statements that are signed at once, before other tasks may run."""


class StatementRecorder:
    """Makes the statements of one agent."""

    def __init__(  # noqa: PLR0913, PLR0917 - where statements are kept, and what they are made of
        self,
        store: StatementStore,
        key_file: Path,
        agent: str,
        ledgers: Ledgers,
        deliveries: Deliveries,
        retention: float,
    ) -> None:
        """Read the key; raise `ValueError`. `retention` is in seconds."""
        try:
            self._key = read_private_key(files.read_file(key_file, _MOST_KEY_BYTES))
        except OSError as error:
            message = f"cannot read the key file {key_file}: {error.strerror}"
            raise ValueError(message) from error
        except ValueError as error:
            message = f"{key_file}: {error}"
            raise ValueError(message) from error
        self.key_id = key_id(public_text(self._key))
        self.made = 0
        """Statements that were made since the start."""
        self._store = store
        self._agent = agent
        self._ledgers = ledgers
        self._deliveries = deliveries
        self._retention = retention
        self._accounts = StatementAccounts(agent, ledgers, deliveries, 0.0)
        self._cut = 0.0
        self._unsaved: list[StoredStatement] = []
        """Statements that were made and not saved."""

    @property
    def tenants(self) -> int:
        """Number of tenants."""
        return len(self._accounts)

    async def open(self, now: float) -> None:
        """Open the store and continue with what it has; raise `StatementStoreError`."""
        saved = await asyncio.to_thread(self._store.open)
        self._accounts = StatementAccounts(self._agent, self._ledgers, self._deliveries, now)
        self._accounts.restore(saved.states, saved.checkpoint, now)
        self._cut = now if saved.cut is None else saved.cut

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def wait(self, now: float, interval: float) -> float:
        """Return the seconds until the next checkpoint: `interval`, or less if the hour ends before."""
        return min(interval, HOUR - now % HOUR + 0.001)

    async def checkpoint(self, now: float, *, stopped: bool = False) -> None:
        """Collect and save the figures, and the statements if an hour has ended; raise `StatementStoreError`.

        What could not be saved is saved by the next call.
        """
        for _ in self._accounts.collect():
            await asyncio.sleep(0)
        if now // HOUR > self._cut // HOUR:
            await self._make(now)
            self._cut = now
        changed = sorted(self._accounts.changed)
        self._accounts.changed.clear()  # before the write: what changes meanwhile is saved by the next checkpoint
        states = self._accounts.states(changed)
        statements: Sequence[StoredStatement] = list(self._unsaved)
        try:
            await asyncio.to_thread(
                self._store.save,
                states,
                statements,
                now=now,
                cut=self._cut,
                stopped=stopped,
                keep_since=now - self._retention,
            )
        except BaseException:
            self._accounts.changed.update(changed)
            raise
        del self._unsaved[: len(statements)]

    async def _make(self, now: float) -> None:
        """Make the statements of all tenants that have something to state."""
        for number, statement in enumerate(self._accounts.due(now), start=1):
            text = sign_statement(statement, self._key)
            hash_ = digest(text)
            self._accounts.stated(statement, hash_)
            self._unsaved.append(
                StoredStatement(statement.tenant, statement.sequence, statement.begin, statement.end, hash_, text)
            )
            self.made += 1
            if not number % _SLICE:
                await asyncio.sleep(0)
