"""A control store with an admin API on it, without a socket, and operators of each role."""

import json
import time

import pytest

from otelwp_agent.admin.admission import ApiAdmission
from otelwp_agent.admin.dispatch import AdminDispatcher
from otelwp_agent.admin.exchange import ApiRequest
from otelwp_agent.admin.identity import Identification
from otelwp_agent.admin.resources import OPERATIONS
from otelwp_agent.admin.routes import RouteTable
from otelwp_agent.component import Kind
from otelwp_agent.config.types import Endpoint
from otelwp_agent.control import audit
from otelwp_agent.control.api_keys import Scope
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations import keys, operators, tenants
from otelwp_agent.control.operations.operators import Role
from otelwp_agent.extensions.control_store import FACTORY as CONTROL_STORE
from otelwp_agent.limiting.bans import Bans
from otelwp_agent.testing.fakes import make_context
from otelwp_agent.transport.local_access import LocalAccess

SETUP = Actor("test")
PEER = "192.0.2.7"


class Answer:
    """An answer, with its JSON."""

    def __init__(self, answer):
        self.status = answer.status
        self.headers = dict(answer.headers)
        self.content_type = answer.content_type
        self.body = answer.body
        self.json = json.loads(answer.body) if answer.body else None


class Api:
    """The admin API of a store; `tokens` has a token for each role."""

    def __init__(self, store):
        context = make_context(Kind.EXTENSION, "admin_api")
        self.store = store
        self.now = 0.0
        self.failures = 0
        self.tokens = {}
        self.routes = RouteTable()
        self.routes.mount("control_store", OPERATIONS)
        local = LocalAccess(
            [Endpoint("127.0.0.1:13140")], [], setting="admin_api", log=context.log, clock=time.monotonic
        )
        admission = ApiAdmission(
            Identification(store), local, Bans(3, 60.0, 60.0), self._failed, lambda: self.now, context.log
        )
        self.dispatcher = AdminDispatcher(store, self.routes, admission, context.log)

    def _failed(self):
        self.failures += 1

    async def raw(self, method, target, body=b"", **headers):
        """Answer a request with these headers, in which `_` stands for `-`."""

        async def read():
            return body

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = ApiRequest(method, target, {"host": "localhost", **named}, PEER, read)
        return Answer(await self.dispatcher.answer(request))

    async def call(self, method, path, body=None, *, by="admin", **headers):
        """Answer a request of the operator with the role `by`, or with the API key `by`."""
        text = b"" if body is None else json.dumps(body).encode()
        return await self.raw(
            method,
            f"/api/v1{path}",
            text,
            authorization=f"Bearer {self.tokens.get(by, by)}",
            content_type="application/json",
            **headers,
        )

    async def key(self, tenant, *scopes):
        """Create an API key of a tenant, and return its text."""
        hasher = self.store.directory.hasher
        created = await self.store.store.write(
            lambda connection: keys.create_key(
                connection, SETUP, hasher, tenant, name="test", scopes=[Scope(each) for each in scopes]
            )
        )
        await self.store._refresher.refresh()
        return created.text

    async def log(self):
        """Return the rows of the audit log that requests have written, oldest first."""
        rows = await self.store.store.read(audit.list_events)
        return [row.event for row in reversed(rows) if row.event.actor != SETUP.name]


@pytest.fixture
async def api(tmp_path):
    config = CONTROL_STORE.config(url=f"sqlite:///{tmp_path}/control.db", create=True)
    store = CONTROL_STORE.build(config, make_context(Kind.EXTENSION, "control_store"))
    await store.start()
    found = Api(store)

    def setup(connection):
        for role in Role:
            new = operators.add_operator(connection, SETUP, store.directory.hasher, f"the-{role.value}", role)
            found.tokens[role.value] = new.token
        for tenant in ("acme", "globex"):
            tenants.create_tenant(connection, SETUP, tenant)

    await store.store.write(setup)
    await store._refresher.refresh()
    yield found
    await store.shutdown()
