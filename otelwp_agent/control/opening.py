"""Open a control store together with its pepper, as commands and agents do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otelwp_agent.control import pepper
from otelwp_agent.control.api_keys import Hasher
from otelwp_agent.control.errors import PepperError
from otelwp_agent.control.failures import MIGRATE
from otelwp_agent.control.store import Store, bind_pepper, recorded_pepper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


class Migrated(NamedTuple):
    """The result of `migrate`: the revision before (`None`: the store was created) and after."""

    before: str | None
    revision: str
    pepper_created: bool


class StorePlace:
    """The place of a control store and of its pepper."""

    def __init__(self, url: str, pepper_file: str = "", environment: Mapping[str, str] = os.environ) -> None:
        """Use the store at `url`; raise `StoreError` if it is invalid.

        Without `pepper_file`, the pepper is in the environment, or else in the file `<store>.pepper` beside a store in
        SQLite.
        """
        self.store = Store(url)
        self._environment = environment
        self.pepper_path: Path | None = None
        """The file of the pepper; `None` if it is in the environment."""
        if pepper_file:
            self.pepper_path = Path(pepper_file)
        elif pepper.VARIABLE not in environment and self.store.path is not None:
            self.pepper_path = self.store.path.with_name(f"{self.store.path.name}.pepper")

    @property
    def pepper_place(self) -> str:
        """The place of the pepper for messages."""
        return str(self.pepper_path) if self.pepper_path is not None else f"the environment variable {pepper.VARIABLE}"

    def migrate(self) -> Migrated:
        """Create or upgrade the store, and create its pepper if it has none yet; raise `StoreError`."""
        before, revision = self.store.migrate()
        with self.store.write() as connection:
            secret, created = self._read(), False
            if secret is None:
                if recorded_pepper(connection) or self.pepper_path is None:
                    raise self._missing(connection)
                secret, created = pepper.create(self.pepper_path), True
            bind_pepper(connection, Hasher(secret).fingerprint(), self.pepper_place)
        return Migrated(before, revision, created)

    def hasher(self, connection: Connection) -> Hasher:
        """Return the hasher of the store's API keys; raise `PepperError`."""
        secret = self._read()
        if secret is None:
            raise self._missing(connection)
        hasher = Hasher(secret)
        self.check(connection, hasher)
        return hasher

    def hasher_without_store(self) -> Hasher:
        """Return the hasher for the pepper while the store cannot be read; raise `PepperError`.

        Whether it is the pepper of the store is not known: `check` finds out.
        """
        secret = self._read()
        if secret is None:
            raise PepperError(f"there is no pepper in {self.pepper_place}: restore it from a backup")
        return Hasher(secret)

    def check(self, connection: Connection, hasher: Hasher) -> None:
        """Raise `PepperError` if the store was created with another pepper than that of `hasher`."""
        if not recorded_pepper(connection):
            raise self._missing(connection)
        bind_pepper(connection, hasher.fingerprint(), self.pepper_place)

    def _read(self) -> bytes | None:
        return pepper.read(self.pepper_path, self._environment)

    def _missing(self, connection: Connection) -> PepperError:
        if recorded_pepper(connection):
            return PepperError(
                f"there is no pepper in {self.pepper_place}, and without it no API key is accepted: restore it from a "
                "backup, or give the right place (`pepper_file`, `--pepper-file`)"
            )
        if self.pepper_path is None:
            return PepperError(
                "no place for the pepper is given: give a file (`pepper_file`, `--pepper-file`), or set the "
                f"environment variable {pepper.VARIABLE} to 64 random hexadecimal digits"
            )
        return PepperError(f"there is no pepper in {self.pepper_place} yet: create it with {MIGRATE}")
