"""Make signed statements of delivery: per tenant and hour, the items accepted and their outcomes.

A statement contains the figures of the tenant's ledgers and exporters, is signed (EdDSA), and contains the hash of the
one before it, so that none can be changed, removed or inserted without being noticed. `otelwp-agent statement verify`
checks a file of them without the agent. With `admin`, the admin API serves them to operators, and to API keys with the
scope `usage`, at `/api/v1/tenants/{tenant}/statements`. docs/topics/statements.md describes format and meaning.

Example::

    extensions:
      delivery_statements:
        file: /var/lib/otelwp/statements.db
        key_file: /etc/otelwp/statements.pem
    service:
      extensions: [delivery_statements]
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from otelwp_agent.admin.mounting import AdminRoutes
from otelwp_agent.component import ComponentConfig, ComponentHealth, Extension, Factory, Kind, Tier
from otelwp_agent.config.references import AdminApiRef  # noqa: TC001 - a field's annotation
from otelwp_agent.config.types import PositiveDuration  # noqa: TC001 - a field's annotation
from otelwp_agent.errors import StartError
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.telemetry.tasks import spawn

if TYPE_CHECKING:
    from collections.abc import Callable

    from otelwp_agent.component import Context
    from otelwp_agent.statements.recorder import StatementRecorder

STATEMENTS = Instrument("otelwp_delivery_statements", "Statements of delivery that were made.", labels=("extension",))
FAILURES = Instrument(
    "otelwp_delivery_statements_failures",
    "Checkpoints of statements that could not be written; the next one contains their figures.",
    labels=("extension",),
)
TENANTS = Instrument(
    "otelwp_delivery_statements_tenants", "Tenants with statements.", InstrumentKind.GAUGE, ("extension",)
)


class Config(ComponentConfig):
    """Settings of `delivery_statements`."""

    file: str = Field(min_length=1)
    """Database of the statements, for this agent only. It is created if it does not exist."""
    key_file: str = Field(min_length=1)
    """Private key that signs the statements: Ed25519 in PEM, as `otelwp-agent statement new-key` writes it."""
    agent: str = Field("", max_length=128)
    """Name of this agent in the statements. Default: the host name. Keep it: another name begins another chain."""
    admin: AdminApiRef | None = None
    """Id of the extension `admin_api` that serves the statements. Without it, only the file has them."""
    checkpoint_interval: PositiveDuration = 60.0
    """Time between two checkpoints. Without a journal, what happened after the last one is lost if the agent is
    killed; the next statement names the time."""
    retention: PositiveDuration = 400 * 86400.0
    """Time after which statements are deleted."""


class DeliveryStatements(Extension):
    """Makes statements each hour, and saves the figures in between."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens the file."""
        super().__init__(context)
        self._config = config
        self._agent = config.agent or socket.gethostname()
        self._routes = None if config.admin is None else context.extension(config.admin, AdminRoutes)  # type: ignore[type-abstract]
        self._recorder: StatementRecorder | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._failure = ""
        self.wall: Callable[[], float] = time.time
        """Returns seconds since 1970."""

    async def start(self) -> None:
        """Open the file and continue with its figures; raise `StartError`."""
        where = f"extensions/{self.context.id}"
        try:
            from otelwp_agent.statements.recorder import StatementRecorder  # noqa: PLC0415 - packages may be missing
            from otelwp_agent.statements.store import StatementStore, StatementStoreError  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"{where}: {error.name} is not installed: install it with `pip install 'otelwp-agent[sealing]'`"
            ) from error
        config, context = self._config, self.context
        store = StatementStore(Path(config.file))
        try:
            recorder = StatementRecorder(
                store, Path(config.key_file), self._agent, context.ledgers, context.deliveries, config.retention
            )
            await recorder.open(self.wall())
        except (ValueError, StatementStoreError) as error:
            store.close()
            raise StartError(f"{where}: {error}") from error
        self._recorder = recorder
        name = str(context.id)
        context.registry.counter(STATEMENTS, lambda: recorder.made, extension=name)
        context.registry.gauge(TENANTS, lambda: recorder.tenants, extension=name)
        context.registry.counter(FAILURES, extension=name)
        if self._routes is not None:
            from otelwp_agent.admin.resources.statements import operations  # noqa: PLC0415 - only with the admin API

            self._routes.mount(name, operations(store))
        self._task = spawn(self._run(recorder), name=f"{where}: checkpoints")
        context.log.info("statements of delivery", agent=self._agent, key=recorder.key_id, tenants=recorder.tenants)

    async def shutdown(self) -> None:
        """Save the last figures and close the file."""
        if self._routes is not None:
            self._routes.unmount(str(self.context.id))
        if self._task is not None:
            self._stop.set()  # not cancelled: a checkpoint that is being written ends first
            await self._task
            self._task = None
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            await self._checkpoint(recorder, stopped=True)
            recorder.close()

    def health(self) -> ComponentHealth | None:
        """Report whether the last checkpoint was written."""
        if self._recorder is None:
            return None
        details = {"tenants": self._recorder.tenants, "statements": self._recorder.made}
        return ComponentHealth(self.context.kind, str(self.context.id), not self._failure, self._failure, details)

    async def _run(self, recorder: StatementRecorder) -> None:
        while not self._stop.is_set():
            await self._checkpoint(recorder)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(recorder.wait(self.wall(), self._config.checkpoint_interval)):
                    await self._stop.wait()

    async def _checkpoint(self, recorder: StatementRecorder, *, stopped: bool = False) -> None:
        from otelwp_agent.statements.store import StatementStoreError  # noqa: PLC0415 - see `start`

        try:
            await recorder.checkpoint(self.wall(), stopped=stopped)
        except StatementStoreError as error:
            self.context.registry.counter(FAILURES, extension=str(self.context.id)).add()
            if not self._failure:
                self.context.log.error(  # noqa: TRY400 - the message says all
                    "statements of delivery not saved; the next try contains them", error=str(error)
                )
            self._failure = str(error)
        else:
            self._failure = ""


FACTORY = Factory(
    Kind.EXTENSION,
    "delivery_statements",
    Config,
    DeliveryStatements,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    instruments=(STATEMENTS, FAILURES, TENANTS),
)
