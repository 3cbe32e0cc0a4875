"""How a licence starts: with and without a licence server, a state file or a usable licence."""

import asyncio
import json
from datetime import date

import pytest

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.testing import fake_time
from otelwp_agent.tier import Tier
from tests.licensing.host import FREE, HOUR, PRO, UNREACHABLE, Host, simulated
from tests.licensing.issuer import DAY, ISSUER, START, Issuer


@simulated
async def test_the_state_survives_a_restart_during_an_outage(tmp_path):
    host = Host(tmp_path / "state")
    await host.start()
    await asyncio.sleep(29.5 * DAY)
    host.outage = UNREACHABLE
    await host.restart()
    await asyncio.sleep(20 * DAY)  # the lease in the configuration ended 19 days ago, and with it its grace
    assert host.now == PRO
    await host.manager.stop()


@simulated
async def test_a_start_waits_for_the_server_if_the_tier_depends_on_it():
    host = Host()
    host.began += 100 * DAY
    await host.start()
    assert host.now == PRO
    assert len(host.asked) == 1
    await host.manager.stop()


@simulated
async def test_a_start_does_not_wait_long_for_a_slow_server():
    host = Host()
    host.began += 100 * DAY

    async def ask(text, nonce):
        await asyncio.sleep(HOUR)

    host.ask = ask
    host.manager = host.boot()
    before = host.time()
    await host.start()
    assert host.time() - before <= 5
    assert host.now == FREE
    assert host.metric("refresh_failures", reason="timeout") == 1
    await host.manager.stop()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"key": "not a licence"}, "this is not a licence"),
        ({"key": Issuer().issue()}, "which this agent does not have"),
        ({"key": ISSUER.issue()[:-8]}, "changed or truncated"),
        ({"key": ISSUER.issue(expires=date(2026, 12, 31))}, "expired at the end of 2026-12-31"),
        ({"public_keys": ["/none/keys"]}, "cannot be read"),
        ({"key": None, "file": "/none/license"}, "cannot be read"),
    ],
)
def test_a_licence_that_cannot_be_used_is_the_free_tier_and_says_why(settings, why):
    async def live():
        host = Host(required=False)
        host.outage = UNREACHABLE
        if "file" in settings:
            config = LicenseConfig(file=settings["file"], public_keys=[ISSUER.public])
            await host.manager.start(config, Tier.ENTERPRISE, None)
        else:
            await host.start(Tier.ENTERPRISE, **settings)
        assert host.now == FREE
        assert why in host.manager.current.reason
        assert not host.manager.healthy
        await host.manager.stop()

    fake_time.run(live())


@pytest.mark.parametrize("content", ["", "{", '{"version": 1, "license": "x.y.z", "mark": 0, "refreshed": 0}'])
def test_a_damaged_state_file_is_replaced_and_changes_nothing(tmp_path, content):
    async def live():
        path = tmp_path / "state"
        path.write_text(content)
        host = Host(path)
        await host.start()
        assert host.now == PRO
        await asyncio.sleep(DAY)
        assert json.loads(path.read_text())["mark"] > START
        await host.manager.stop()

    fake_time.run(live())


@simulated
async def test_a_state_file_that_cannot_be_written_is_counted(tmp_path):
    (tmp_path / "file").write_text("")
    host = Host(tmp_path / "file" / "state")
    await host.start()
    await asyncio.sleep(DAY)
    assert host.now == PRO
    assert host.metric("state_failures") > 1
    await host.manager.stop()


@simulated
async def test_the_renewal_of_another_licence_is_not_used(tmp_path):
    path = tmp_path / "state"
    other = ISSUER.issue(jti="shop-2", tier="enterprise", iat=int(START))
    path.write_text(json.dumps({"version": 1, "license": other, "mark": 0, "refreshed": START}))
    host = Host(path)
    await host.start()
    assert host.now == PRO
    await host.manager.stop()
