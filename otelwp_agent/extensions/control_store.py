"""Open the control store: tenants, plans and API keys for other extensions, such as `api_key`.

The store is created with `otelwp-agent control migrate` and filled with `otelwp-agent tenants` and `api-keys`.
It is a file (SQLite) or a PostgreSQL database, which several agents share. The agent keeps tenants, plans and keys in
memory, and reads changes in the background within a second. While the store is unreachable, the last state stays in
use. At the start, the store must be reachable, unless there is a snapshot of an earlier run (`snapshot_file`).

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
        pepper_file: /etc/otelwp/control.pepper
        snapshot_file: /var/lib/otelwp/control.snapshot
    service:
      extensions: [control_store]
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Tier
from otelwp_agent.config.references import Capability
from otelwp_agent.config.types import PositiveDuration, Secret  # noqa: TC001 - pydantic reads them
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.control.errors import StoreError
from otelwp_agent.control.last_used import LastUsed
from otelwp_agent.errors import StartError
from otelwp_agent.telemetry.log_limit import LogLimit
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from otelwp_agent.component import Context
    from otelwp_agent.control.directory import TenantDirectory
    from otelwp_agent.control.refresh import Refresher
    from otelwp_agent.control.snapshot_keeper import SnapshotKeeper
    from otelwp_agent.control.store_thread import StoreThread

DEFAULT_URL = "sqlite:////var/lib/otelwp/control.db"
STORE_USES_EVERY = 10.0
"""Seconds between two writes of when keys were last used."""

AGE = Instrument(
    "otelwp_control_store_age_seconds",
    "Seconds since the tenants, plans and API keys in memory were last compared with the control store.",
    InstrumentKind.GAUGE,
    ("extension",),
)
FAILURES = Instrument(
    "otelwp_control_store_refresh_failures",
    "Failed attempts to read changes from the control store; the last state stays in use.",
    labels=("extension",),
)
SNAPSHOT_FAILURES = Instrument(
    "otelwp_control_store_snapshot_failures",
    "Failed attempts to write the snapshot file of the control store.",
    labels=("extension",),
)
TENANTS = Instrument(
    "otelwp_control_store_tenants", "Tenants in the control store.", InstrumentKind.GAUGE, ("extension",)
)
KEYS = Instrument(
    "otelwp_control_store_keys",
    "API keys in the control store that are not revoked.",
    InstrumentKind.GAUGE,
    ("extension",),
)


def _is_store(url: Secret) -> Secret:
    text = url.get_secret_value()
    if not text.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
        raise ValueError("this is not the URL of a control store: write `sqlite:////PATH` or `postgresql://…`")
    return url


class Config(ComponentConfig):
    """Settings of `control_store`."""

    url: Annotated[Secret, AfterValidator(_is_store)] | None = None
    """The store: `sqlite:////PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`. Default:
    `sqlite:////var/lib/otelwp/control.db`."""
    pepper_file: str = ""
    """File with the secret that API keys are hashed with. Default: the environment variable `OTELWP_CONTROL_PEPPER`;
    if it is not set, for SQLite the file `<store>.pepper` beside the store."""
    refresh_interval: PositiveDuration = 0.25
    """How often the store is asked for changes. PostgreSQL notifies changes, and is asked only while it cannot."""
    create: bool = False
    """Create the store and its pepper at the start if they do not exist, and upgrade an older store. Otherwise
    `otelwp-agent control migrate` does it."""

    snapshot_file: str = ""
    """File to which tenants, plans and hashes of API keys are written after each change, with mode 0600. If the store
    is unreachable, locked, missing or damaged at the start, the agent starts with this file. Keys that were revoked
    since are then accepted until the store is reachable. Each agent needs a file of its own. Default: no file."""

    @property
    def store_url(self) -> str:
        """The URL of the store."""
        return DEFAULT_URL if self.url is None else self.url.get_secret_value()


class ControlStore(Extension, ControlAccess):
    """Keeps the directory of tenants up to date."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens the store."""
        super().__init__(context)
        self._url = config.store_url
        self._pepper_file = config.pepper_file
        self._interval = config.refresh_interval
        self._create = config.create
        self._snapshot_path = config.snapshot_file
        self._directory: TenantDirectory | None = None
        self._thread: StoreThread | None = None
        self._refresher: Refresher | None = None
        self._used = LastUsed()
        self._failures = LogLimit(context.clock)
        self._writers: list[asyncio.Task[None]] = []
        self._snapshot: SnapshotKeeper | None = None
        self._remove_tiers: Callable[[], None] | None = None

    @property
    def directory(self) -> TenantDirectory:
        """Tenants, plans and API keys in memory."""
        if self._directory is None:
            raise StartError(f"extensions/{self.context.id}: the control store is not open")
        return self._directory

    @property
    def used(self) -> LastUsed:
        """Collects when API keys are used."""
        return self._used

    @property
    def store(self) -> StoreThread:
        """Runs transactions on the store."""
        if self._thread is None:
            raise StartError(f"extensions/{self.context.id}: the control store is not open")
        return self._thread

    async def start(self) -> None:
        """Open the store and read it; raise `StartError`."""
        try:
            await self._open()
        except ModuleNotFoundError as error:
            extra = "postgresql" if error.name == "psycopg" else "control"
            raise StartError(
                f"extensions/{self.context.id}: {error.name} is not installed: install it with `pip install "
                f"'otelwp-agent[{extra}]'`"
            ) from error
        except StoreError as error:
            await self.shutdown()
            raise StartError(f"extensions/{self.context.id}: {error}") from error
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Store the uses of keys that were not stored yet, and close the store."""
        if self._remove_tiers is not None:
            self._remove_tiers()
            self._remove_tiers = None
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
        if writers:
            await self._store_uses()
        if self._refresher is not None:
            await self._refresher.stop()
            self._refresher = None
        if self._snapshot is not None:
            await self._snapshot.update()
            self._snapshot = None
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await thread.close()

    def health(self) -> ComponentHealth | None:
        """Report the state of the store, and the age of what is in memory."""
        directory = self._directory
        if directory is None or self._thread is None:
            return None
        details: dict[str, object] = {
            "store": self._thread.store.location,
            "age": round(self._age(), 3),
            "tenants": len(directory.current.tenants),
            "keys": len(directory.current.keys),
        }
        message = directory.error
        if self._snapshot is not None:
            details["snapshot"] = self._snapshot.state()
            if message and self._snapshot.in_use:
                message = f"the snapshot in use was compared with the store {self._age():.0f} s ago: {message}"
        return ComponentHealth(self.context.kind, str(self.context.id), not directory.error, message, details)

    async def _open(self) -> None:
        from otelwp_agent.control.directory import TenantDirectory  # noqa: PLC0415 - the packages may be missing
        from otelwp_agent.control.opening import StorePlace  # noqa: PLC0415 - the same
        from otelwp_agent.control.refresh import Refresher  # noqa: PLC0415 - the same
        from otelwp_agent.control.snapshot_file import SnapshotFile  # noqa: PLC0415 - the same
        from otelwp_agent.control.snapshot_keeper import AWAY, SnapshotKeeper  # noqa: PLC0415 - the same
        from otelwp_agent.control.store_thread import StoreThread  # noqa: PLC0415 - the same

        context = self.context
        place = StorePlace(self._url, self._pepper_file)
        thread = self._thread = StoreThread(place.store)

        def refresher_of(directory: TenantDirectory) -> Refresher:
            def check(connection: Connection) -> None:
                place.check(connection, directory.hasher)

            return Refresher(thread, directory, self._interval, clock=context.clock, log=context.log, check=check)

        def keeper_of(directory: TenantDirectory) -> SnapshotKeeper:
            file = SnapshotFile(Path(self._snapshot_path), place.store.location, directory.hasher)
            return SnapshotKeeper(file, directory, thread, clock=context.clock, log=context.log)

        try:
            if self._create:
                await thread.run(place.migrate)
            directory = TenantDirectory(await thread.read(place.hasher))
            refresher = refresher_of(directory)
            await refresher.load()
            snapshot = keeper_of(directory)
        except AWAY as error:
            if not self._snapshot_path:
                raise
            directory = TenantDirectory(place.hasher_without_store())
            refresher = refresher_of(directory)
            snapshot = keeper_of(directory)
            await snapshot.use(error)
        self._directory, self._refresher = directory, refresher
        self._bind_metrics(directory, refresher)
        self._remove_tiers = context.tenant_tiers.add(directory.tier)
        refresher.start()
        self._writers = [spawn(self._store_uses_regularly(), name=f"extensions/{context.id}: last use of keys")]
        if self._snapshot_path:
            self._snapshot = snapshot
            context.registry.counter(SNAPSHOT_FAILURES, lambda: snapshot.failures, extension=str(context.id))
            self._writers.append(spawn(snapshot.run(), name=f"extensions/{context.id}: snapshot"))
        context.log.info(
            "control store opened",
            store=place.store.location,
            tenants=len(directory.current.tenants),
            keys=len(directory.current.keys),
        )

    def _bind_metrics(self, directory: TenantDirectory, refresher: Refresher) -> None:
        registry, name = self.context.registry, str(self.context.id)
        registry.gauge(AGE, self._age, extension=name)
        registry.counter(FAILURES, lambda: refresher.failures, extension=name)
        registry.gauge(TENANTS, lambda: len(directory.current.tenants), extension=name)
        registry.gauge(KEYS, lambda: len(directory.current.keys), extension=name)

    def _age(self) -> float:
        return 0.0 if self._directory is None else max(0.0, self.context.clock() - self._directory.refreshed_at)

    async def _store_uses_regularly(self) -> None:
        while True:
            await asyncio.sleep(STORE_USES_EVERY)
            await self._store_uses()

    async def _store_uses(self) -> None:
        """Store when keys were used; after a failure, try again the next time."""
        from otelwp_agent.control.operations.keys import record_use  # noqa: PLC0415 - the packages may be missing

        while used := self._used.take(time.time()):
            try:
                await self.store.write(lambda connection, used=used: record_use(connection, used))  # type: ignore[misc]
            except StoreError as error:
                self._used.put_back(used)
                if times := self._failures.take():
                    self.context.log.warning("last use of API keys not stored", times=times, error=str(error))
                return


FACTORY = Factory(
    Kind.EXTENSION,
    "control_store",
    Config,
    ControlStore,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    capabilities=frozenset({Capability.CONTROL_STORE}),
    instruments=(AGE, FAILURES, SNAPSHOT_FAILURES, TENANTS, KEYS),
)
