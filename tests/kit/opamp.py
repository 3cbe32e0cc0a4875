"""An OpAMP server with a control store and API keys, over real sockets, and messages of agents."""

import aiohttp
import structlog

from otelwp_agent.codecs.opamp import opamp_pb2 as pb
from otelwp_agent.codecs.opamp.framing import frame, unframe
from otelwp_agent.component import ComponentId, Kind
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, tenants
from otelwp_agent.extensions.api_key import FACTORY as API_KEY
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.extensions.opamp_server import FACTORY
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock, make_context
from tests.kit.fleet import NOW

SETUP = Actor("test")
UID = bytes(range(16))
PROTOBUF = "application/x-protobuf"


def message(sequence=0, uid=UID, *, attributes=None, **fields):
    """Return a message of an agent. Without `attributes`, it does not describe itself."""
    built = pb.AgentToServer(instance_uid=uid, sequence_num=sequence, capabilities=0x1 | 0x2 | 0x1000, **fields)
    if attributes is not None:
        built.agent_description.SetInParent()
        for name, value in attributes.items():
            built.agent_description.identifying_attributes.add(key=name).value.string_value = value
    return built


def health(error="", **below):
    """Return the health of an agent with components; healthy without an error."""
    return pb.ComponentHealth(healthy=not error, last_error=error, component_health_map=below)


class OpampSite:
    """An OpAMP server. `keys` has an API key of each tenant, and one for `ingest`."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.settings = settings
        self.registry = Registry()
        self.wall = FakeClock(NOW.timestamp())
        self.clock = FakeClock()
        self.keys = {}

    async def __aenter__(self):
        config = CONTROL_STORE.config(url=f"sqlite:///{self.folder}/control.db", create=True)
        self.store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
        await self.store.start()
        await self.store.store.write(self._create)
        await self.store._refresher.refresh()
        extensions = {ComponentId("control_store"): self.store}
        extensions[ComponentId("api_key")] = API_KEY.build(
            API_KEY.config(scope="heartbeat"), make_context(Kind.EXTENSION, "api_key", extensions=extensions)
        )
        context = make_context(
            Kind.EXTENSION,
            "opamp_server",
            registry=self.registry,
            log=structlog.get_logger(),
            clock=self.clock,
            extensions=extensions,
        )
        config = {"endpoint": "127.0.0.1:0", "auth": {"authenticator": "api_key"}} | self.settings
        self.server = FACTORY.build(FACTORY.config.model_validate(config), context)
        self.server.wall = self.wall
        await self.server.start()
        self.url = f"{self.server.endpoints()['opamp']}/v1/opamp"
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_):
        await self.session.close()
        await self.server.shutdown()
        await self.store.shutdown()

    def _create(self, connection):
        hasher = self.store.directory.hasher
        for tenant in ("acme", "globex"):
            tenants.create_tenant(connection, SETUP, tenant, plan="enterprise")
            key = keys.create_key(connection, SETUP, hasher, tenant, name="agents", scopes=[Scope.HEARTBEAT])
            self.keys[tenant] = key.text
        key = keys.create_key(connection, SETUP, hasher, "acme", name="telemetry", scopes=[Scope.INGEST])
        self.keys["ingest"] = key.text

    def headers(self, by="acme"):
        """Return the headers of a request with the API key of a tenant."""
        return {"Authorization": f"Bearer {self.keys[by]}"} if by else {}

    async def read(self, function):
        """Run a function on the store."""
        return await self.store.store.read(function)

    async def write(self, function):
        """Change the store."""
        return await self.store.store.write(function)

    async def post(self, body, by="acme", **headers):
        """Send a message over HTTP; return the status, the headers and the reply."""
        body = body if isinstance(body, bytes) else body.SerializeToString()
        headers = {"Content-Type": PROTOBUF, **self.headers(by), **headers}
        async with self.session.post(self.url, data=body, headers=headers) as response:
            raw = await response.read()
            is_reply = response.content_type == PROTOBUF
            return response.status, response.headers, pb.ServerToAgent.FromString(raw) if is_reply else raw.decode()

    def socket(self, by="acme"):
        """Open a WebSocket."""
        return self.session.ws_connect(self.url, headers=self.headers(by))

    def value(self, name, **labels):
        """Return the value of a metric of the server."""
        return self.registry.value(f"otelwp_opamp_server_{name}", **labels)


async def ask(socket, sent):
    """Send a message over a WebSocket; return the reply."""
    await socket.send_bytes(frame(sent.SerializeToString()))
    return await reply_of(socket)


async def reply_of(socket):
    """Return the next message that a WebSocket receives."""
    return pb.ServerToAgent.FromString(unframe(await socket.receive_bytes()))
