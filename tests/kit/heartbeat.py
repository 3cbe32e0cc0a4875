"""A heartbeat receiver with a control store and API keys, over real sockets."""

import asyncio
import json

import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.extensions.api_key import FACTORY as API_KEY
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.model.signal import Signal
from otelwp_agent.receivers.heartbeat import FACTORY
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import Catcher, FakeClock
from otelwp_agent.testing.fakes import make_context
from tests.kit.fleet import NOW

SETUP = Actor("test")
MERCHANT = "0b7a7c3e-7d0c-4a53-9f0d-6f9f5c1f9f11"


class HeartbeatAgent:
    """A receiver and the telemetry that it forwards. `keys` has an API key of each tenant, and one for `ingest`."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.settings = settings
        self.registry = Registry()
        self.wall = FakeClock(NOW.timestamp())
        self.metrics, self.logs = Catcher(), Catcher()
        self.keys = {}

    async def __aenter__(self):
        config = CONTROL_STORE.config(url=f"sqlite:///{self.folder}/control.db", create=True)
        self.store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
        await self.store.start()
        await self.store.store.write(self._create)
        await self.store._refresher.refresh()
        extensions = {ComponentId("control_store"): self.store}
        authenticator = API_KEY.build(
            API_KEY.config(scope=self.settings.pop("key_scope", "heartbeat")),
            make_context(Kind.EXTENSION, "api_key", extensions=extensions),
        )
        extensions[ComponentId("api_key")] = authenticator
        context = Context(
            ComponentId("heartbeat"),
            Kind.RECEIVER,
            self.registry,
            structlog.get_logger(),
            FakeClock(),
            None,
            extensions=extensions,
        )
        config = {"endpoint": "127.0.0.1:0", "auth": {"authenticator": "api_key"}} | self.settings
        self.receiver = FACTORY.build(FACTORY.config.model_validate(config), context)
        self.receiver.wall = self.wall
        self.receiver.next = {Signal.METRICS: self.metrics, Signal.LOGS: self.logs}
        await self.receiver.start()
        return self

    async def __aexit__(self, *_):
        await self.receiver.shutdown()
        await self.store.shutdown()

    def _create(self, connection):
        hasher = self.store.directory.hasher
        for tenant in ("acme", "globex"):
            tenants.create_tenant(
                connection,
                SETUP,
                tenant,
                plan="enterprise",
                attributes={"merchant_id": MERCHANT} if tenant == "acme" else {},
            )
            key = keys.create_key(connection, SETUP, hasher, tenant, name="plugin", scopes=[Scope.HEARTBEAT])
            self.keys[tenant] = key.text
        key = keys.create_key(connection, SETUP, hasher, "acme", name="telemetry", scopes=[Scope.INGEST])
        self.keys["ingest"] = key.text

    async def read(self, function):
        """Run a function on the store."""
        return await self.store.store.read(function)

    async def write(self, function):
        """Change the store."""
        return await self.store.store.write(function)

    async def post(self, path, body, by="acme", prefix="/api/v1/plugins"):
        """Send a request; return the status, the headers and the JSON of the answer."""
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = f"Authorization: Bearer {self.keys[by]}\r\n" if by else ""
        port = int(self.receiver.endpoints()["http"].rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = (
            f"POST {prefix}/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{key}Content-Type: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, rest = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, json.loads(rest)

    def refused(self, reason):
        """Return the number of requests that were refused for this reason."""
        return self.registry.value("otelwp_receiver_refused_requests", reason=reason)
