"""A host with a licence manager, a clock that can be set and a licence server, for tests on simulated time."""

import asyncio
import functools

import structlog

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.manager import LicenseManager
from otelwp_agent.licensing.online import RefreshError
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import fake_time
from otelwp_agent.tier import Tier
from tests.licensing.issuer import DAY, ISSUER, START

HOUR = 3600.0
TICK = 1200.0  # fewer looks at the clock than in an agent, because each takes real time here


class Host:
    """A host with a clock that can be set, and a licence server that signs with the issuer's key."""

    def __init__(self, path=None, *, required=False, offset=0.0):
        self.path = None if path is None else str(path)
        self.offset = offset
        """Seconds by which the host's clock is ahead."""
        self.began = START - asyncio.get_running_loop().time()
        self.outage = None
        self.terms = {}
        self.asked = []
        self.seen = []
        self.registry = Registry()
        self.required = required
        self.manager = self.boot()

    def boot(self):
        manager = LicenseManager(
            self.registry,
            structlog.get_logger(),
            required=self.required,
            wall=lambda: self.time() + self.offset,
            monotonic=asyncio.get_running_loop().time,
            random=lambda: 0.5,
            tick=TICK,
            ask=self.ask,
        )
        manager.subscribe(self.seen.append)
        return manager

    def time(self):
        return self.began + asyncio.get_running_loop().time()

    async def ask(self, text, nonce):
        self.asked.append(self.time())
        if self.outage is not None:
            raise self.outage
        now = int(self.time())
        return ISSUER.issue(**{"iat": now, "lease": now + int(30 * DAY), "nonce": nonce} | self.terms)

    async def start(self, tier=None, *, key=None, lease=True, **settings):
        if key is None:
            key = ISSUER.issue(iat=int(START), **({"lease": int(START + 30 * DAY)} if lease else {}))
        given = {"key": key, "url": "https://license.example", "public_keys": [ISSUER.public]} | settings
        await self.manager.start(LicenseConfig.model_validate(given), tier, self.path)

    async def restart(self, **settings):
        await self.manager.stop()
        self.manager = self.boot()
        await self.start(**settings)

    @property
    def now(self):
        return self.manager.current.tier, self.manager.current.basis

    def metric(self, name, **labels):
        return self.registry.value(f"otelwp_license_{name}", **labels)


PRO = Tier.PRO, Basis.LICENSE
IN_GRACE = Tier.PRO, Basis.GRACE
FREE = Tier.FREE, Basis.LAPSED
UNREACHABLE = RefreshError("unreachable", "connection refused")


def simulated(test):
    """Run a coroutine test on a loop with simulated time."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        fake_time.run(test(*args, **kwargs))

    return run
