"""One licence over time: the terms that were issued last are in use. The manager's tests show the rest."""

import asyncio

import structlog

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.licensing.metrics import LicenseMetrics
from otelwp_agent.licensing.state_file import LicenseState, LicenseStateFile
from otelwp_agent.licensing.trusted_clock import TrustedClock
from otelwp_agent.licensing.watch import LicenseWatch
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing.fakes import FakeClock
from tests.licensing.issuer import ISSUER, START


async def watch_of(path, *, installed, renewal, ask=None):
    state = LicenseState(ISSUER.issue(**renewal), START, START)
    LicenseStateFile(str(path)).write(state, sync=False)
    watch = LicenseWatch(
        LicenseConfig(key=ISSUER.issue(**installed), public_keys=[ISSUER.public]),
        str(path),
        clock=TrustedClock(FakeClock(START), FakeClock()),
        ask=ask,
        metrics=LicenseMetrics(Registry()),
        log=structlog.get_logger(),
        random=lambda: 0.5,
        changed=lambda: None,
    )
    await watch.start()
    return watch


async def test_a_newer_renewal_replaces_the_installed_licence(tmp_path):
    renewal = {"iat": int(START) + 5, "tier": "enterprise"}
    watch = await watch_of(tmp_path / "state", installed={}, renewal=renewal)
    assert watch.terms.tier == "enterprise"
    assert watch.refreshed == START
    await watch.stop()


async def test_a_newer_installed_licence_replaces_the_stored_renewal(tmp_path):
    installed = {"iat": int(START) + 5, "tier": "enterprise"}
    watch = await watch_of(tmp_path / "state", installed=installed, renewal={"revoked": "mistake"})
    assert watch.terms.tier == "enterprise"
    assert watch.terms.revoked is None
    await watch.stop()


async def test_an_older_licence_does_not_undo_a_stored_revocation(tmp_path):
    watch = await watch_of(tmp_path / "state", installed={}, renewal={"iat": int(START) + 5, "revoked": "not paid"})
    assert "not paid" in watch.entitlement().reason
    await watch.stop()


async def test_the_state_is_stored_when_it_stops(tmp_path):
    path = tmp_path / "state"
    watch = await watch_of(path, installed={}, renewal={"iat": int(START) + 3600})
    await watch.stop()
    assert LicenseStateFile(str(path)).read().mark >= START + 3600


async def test_a_bug_of_the_client_does_not_end_the_renewals(tmp_path):
    nonces = asyncio.Queue()

    async def ask(_text, nonce):
        await nonces.put(nonce)
        if nonces.qsize() == 1:
            raise ZeroDivisionError
        return ISSUER.issue(iat=int(START) + 60, tier="enterprise", nonce=nonce)

    renewal = {"iat": int(START) - 60, "tier": "free"}
    changes = {"iat": int(START) - 120}
    watch = await watch_of(tmp_path / "state", installed=changes, renewal=renewal, ask=ask)
    for answers in (1, 2):
        watch.renew()
        while nonces.qsize() < answers or not (watch.refresh_error or watch.terms.tier == "enterprise"):
            await asyncio.sleep(0)  # the renewal is a task without I/O
        if answers == 1:
            assert "ZeroDivisionError" in watch.refresh_error
    while watch.refresh_error:
        await asyncio.sleep(0)  # the same
    assert watch.terms.tier == "enterprise"
    await watch.stop()
