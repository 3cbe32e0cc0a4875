"""Serve the admin API: tenants, plans, API keys, operators and the audit log of the control store, as JSON over HTTP.

Operators authenticate with a token (`otelwp-agent operators add`): `Authorization: Bearer wpo_op_…`. The role `viewer`
may read, `operator` may also change tenants, plans and keys, `admin` may also change operators and read the audit log.
Tenants may use API keys with the scopes `ops:read`, `ops:write` and `usage` for their own tenant. Every change is in
the audit log. `/openapi.json` describes all operations; docs/topics/admin-api.md shows how to use them.

Example::

    extensions:
      control_store:
        url: sqlite:////var/lib/otelwp/control.db
      admin_api:
        endpoint: 127.0.0.1:13140
        store: control_store
    service:
      extensions: [control_store, admin_api]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.admin.mounting import AdminRoutes
from otelwp_agent.admin.settings import AdminServerSettings
from otelwp_agent.component import ComponentConfig, Extension, Factory, Kind, Tier
from otelwp_agent.config.blocks import Ban
from otelwp_agent.config.references import Capability, ControlStoreRef
from otelwp_agent.control.access import ControlAccess
from otelwp_agent.errors import StartError
from otelwp_agent.limiting.bans import Bans
from otelwp_agent.telemetry.metrics import Instrument
from otelwp_agent.transport.local_access import LocalAccess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otelwp_agent.admin.exchange import ApiAnswer, ApiRequest
    from otelwp_agent.admin.operation import ApiOperation
    from otelwp_agent.admin.routes import RouteTable
    from otelwp_agent.admin.server import AdminServer
    from otelwp_agent.component import Context

REQUESTS = Instrument(
    "otelwp_admin_api_requests",
    "Requests to the admin API by class of their status: 2xx, 4xx or 5xx.",
    labels=("extension", "status"),
)
FAILURES = Instrument(
    "otelwp_admin_api_authentication_failures",
    "Requests to the admin API without a valid token or API key.",
    labels=("extension",),
)
_CLASSES = ("2xx", "4xx", "5xx")
_OWNER = "control_store"
"""Owner of the operations on the control store."""


class Config(AdminServerSettings, ComponentConfig):
    """Settings of `admin_api`."""

    store: ControlStoreRef = ControlStoreRef("control_store")
    """Id of the extension that opens the control store."""
    ban: Ban = Ban()
    """When to ban an address that fails to authenticate."""


class AdminApi(Extension, AdminRoutes):
    """Serves the admin API. Other extensions mount their operations on it when they are built."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` listens. Raise `StartError` if packages are missing."""
        super().__init__(context)
        access = context.extension(config.store, ControlAccess)  # type: ignore[type-abstract]
        try:
            from otelwp_agent.admin.admission import ApiAdmission  # noqa: PLC0415 - the packages may be missing
            from otelwp_agent.admin.dispatch import AdminDispatcher  # noqa: PLC0415 - the same
            from otelwp_agent.admin.identity import Identification  # noqa: PLC0415 - the same
            from otelwp_agent.admin.resources import OPERATIONS  # noqa: PLC0415 - the same
            from otelwp_agent.admin.routes import RouteTable  # noqa: PLC0415 - the same
            from otelwp_agent.admin.server import AdminServer  # noqa: PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"extensions/{context.id}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[control]'`"
            ) from error
        name = str(context.id)
        self._routes: RouteTable = RouteTable()
        self._routes.mount(_OWNER, OPERATIONS)
        self._requests = {each: context.registry.counter(REQUESTS, extension=name, status=each) for each in _CLASSES}
        local = LocalAccess(
            [config.endpoint, *config.additional_endpoints],
            config.allowed_hosts,
            setting=f"extension {name}",
            log=context.log,
            clock=context.clock,
        )
        admission = ApiAdmission(
            Identification(access),
            local,
            Bans(config.ban.failures, config.ban.window, config.ban.duration),
            context.registry.counter(FAILURES, extension=name).add,
            context.clock,
            context.log,
        )
        self._dispatcher = AdminDispatcher(access, self._routes, admission, context.log)
        self._server: AdminServer = AdminServer(config, self._answer, name=f"extension {name}", log=context.log)

    @property
    def port(self) -> int:
        """Port that it listens on; 0 for a unix socket, or before `start`."""
        return self._server.port

    async def start(self) -> None:
        """Begin to listen; raise `StartError` if the address cannot be used."""
        try:
            await self._server.start()
        except BaseException:
            await self.shutdown()
            raise
        self.context.log.info("admin API listening", url=self._server.url, port=self.port)

    async def shutdown(self) -> None:
        """Stop listening, and finish the requests in progress."""
        await self._server.shutdown()

    def refresh(self) -> None:
        """Reload the certificate files."""
        self._server.reload_tls()

    def endpoints(self) -> Mapping[str, str]:
        """Return the URL that it serves."""
        return {"admin": self._server.url}

    def mount(self, owner: str, operations: Sequence[ApiOperation]) -> None:
        """Add the operations of `owner`, or replace them; raise `ValueError` if another owner has one of them."""
        self._routes.mount(owner, operations)

    def unmount(self, owner: str) -> None:
        """Remove the operations of `owner`."""
        self._routes.unmount(owner)

    async def _answer(self, request: ApiRequest) -> ApiAnswer:
        answer = await self._dispatcher.answer(request)
        self._requests[f"{answer.status // 100}xx"].add()
        return answer


FACTORY = Factory(
    Kind.EXTENSION,
    "admin_api",
    Config,
    AdminApi,
    signals=frozenset(),
    tier=Tier.ENTERPRISE,
    capabilities=frozenset({Capability.ADMIN_API}),
    instruments=(REQUESTS, FAILURES),
)
