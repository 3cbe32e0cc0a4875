"""The life of a licence under a fake clock, with the rules of a licence server and of its outages."""

import asyncio
import subprocess
import sys
from datetime import date

import pytest

from otelwp_agent.config.license import LicenseConfig
from otelwp_agent.licensing.entitlement import Basis
from otelwp_agent.licensing.manager import license_required
from otelwp_agent.testing import fake_time
from otelwp_agent.tier import Tier
from tests.licensing.host import FREE, HOUR, IN_GRACE, PRO, TICK, UNREACHABLE, Host, simulated
from tests.licensing.issuer import DAY, ISSUER, Issuer


def test_the_life_of_a_licence_from_valid_through_outage_and_grace_to_free_and_back():
    async def live():
        host = Host()
        await host.start()
        assert host.now == PRO
        await asyncio.sleep(40 * DAY)  # longer than the first lease: the renewals count
        assert host.now == PRO
        assert 38 <= len(host.asked) <= 50
        gaps = [later - earlier for earlier, later in zip(host.asked, host.asked[1:], strict=False)]
        assert all(0.8 * DAY <= gap <= DAY for gap in gaps)
        assert host.manager.healthy
        last = host.asked[-1]

        host.outage = UNREACHABLE
        await asyncio.sleep(last + 30 * DAY - host.time() - HOUR)
        assert host.now == PRO
        await asyncio.sleep(2 * HOUR)
        assert host.now == IN_GRACE
        assert not host.manager.healthy
        assert "has not been renewed by the licence server since" in host.manager.current.reason
        await asyncio.sleep(14 * DAY - 4 * HOUR)
        assert host.now == IN_GRACE
        await asyncio.sleep(4 * HOUR)
        assert host.now == FREE
        assert host.metric("tier", tier="free") == 1
        assert host.metric("tier", tier="pro") == 0
        assert host.metric("refresh_failures", reason="unreachable") >= 40
        assert host.metric("days_left") == float("inf")

        host.outage = None
        await asyncio.sleep(6 * HOUR)
        assert host.now == PRO
        assert host.manager.describe()["days_left"] == pytest.approx(44, abs=0.3)
        assert [each.basis for each in host.seen] == [Basis.LICENSE, Basis.GRACE, Basis.LAPSED, Basis.LICENSE]
        assert host.metric("changes", basis="lapsed") == 1
        await host.manager.stop()

    fake_time.run(live())


@simulated
async def test_a_tick_after_the_end_of_the_last_day_the_tier_is_free():
    host = Host()
    await host.start(key=ISSUER.issue(expires=date(2027, 1, 3)), url=None)
    end = ISSUER.terms(expires=date(2027, 1, 3)).ends_at
    await asyncio.sleep(end - host.time() - 1)
    assert host.now == PRO
    await asyncio.sleep(TICK + 1)
    assert host.now == FREE
    await host.manager.stop()


@simulated
async def test_a_signed_revocation_takes_effect_with_the_next_renewal_and_survives_a_restart(tmp_path):
    host = Host(tmp_path / "state")
    await host.start()
    host.terms = {"revoked": "not paid"}
    await asyncio.sleep(DAY)
    assert host.now == FREE
    assert "not paid" in host.manager.current.reason
    host.outage = UNREACHABLE
    await host.restart()
    assert host.now == FREE
    host.outage, host.terms = None, {}
    await asyncio.sleep(7 * HOUR)  # a licence that has lapsed is asked for more often
    assert host.now == PRO
    await host.manager.stop()


@simulated
async def test_a_reload_renews_at_once():
    host = Host()
    await host.start()
    await asyncio.sleep(HOUR)
    before = len(host.asked)
    host.terms = {"revoked": "not paid"}
    await host.start()
    await asyncio.sleep(1)
    assert len(host.asked) == before + 1
    assert host.now == FREE
    await host.manager.stop()


@simulated
async def test_a_renewal_may_raise_the_tier_and_the_last_day():
    host = Host()
    await host.start()
    host.terms = {"tier": "enterprise", "expires": date(2028, 6, 30), "features": ["fleet"]}
    await asyncio.sleep(DAY)
    assert host.now == (Tier.ENTERPRISE, Basis.LICENSE)
    assert host.manager.describe()["expires"] == "2028-06-30"
    assert host.manager.current.features == {"fleet"}
    await host.manager.stop()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda nonce: Issuer().issue(nonce=nonce, revoked="x"), "unknown_key"),
        (lambda nonce: ISSUER.issue(nonce=nonce, revoked="x")[:-4], "signature"),
        (lambda nonce: "valid: false", "malformed"),
        (lambda nonce: ISSUER.issue(nonce=nonce, revoked="x", jti="shop-2"), "other_license"),
        (lambda nonce: ISSUER.issue(nonce="of another request", revoked="x"), "replayed"),
        (lambda nonce: ISSUER.issue(revoked="x"), "replayed"),
    ],
)
def test_answers_that_are_not_signed_for_this_request_revoke_nothing(answer, reason):
    async def live():
        host = Host()

        async def ask(text, nonce):
            return answer(nonce)

        host.ask = ask
        host.manager = host.boot()
        await host.start()
        await asyncio.sleep(2 * DAY)
        assert host.now == PRO
        assert host.metric("refresh_failures", reason=reason) > 1
        await asyncio.sleep(29 * DAY)
        assert host.now == IN_GRACE
        await host.manager.stop()

    fake_time.run(live())


@simulated
async def test_failed_renewals_are_repeated_ever_more_rarely_and_at_least_four_times_a_day():
    host = Host()
    await host.start()
    host.outage = UNREACHABLE
    await asyncio.sleep(3 * DAY)
    gaps = [later - earlier for earlier, later in zip(host.asked, host.asked[1:], strict=False)]
    assert gaps[0] < 400
    assert gaps == sorted(gaps)
    assert gaps[-1] <= 6 * HOUR
    await host.manager.stop()


# -- clocks


@simulated
async def test_setting_the_clock_back_does_not_extend_a_licence(tmp_path):
    host = Host(tmp_path / "state")
    host.outage = UNREACHABLE
    await host.start()
    await asyncio.sleep(20 * DAY)
    host.offset = -15 * DAY
    await asyncio.sleep(10 * DAY + HOUR)
    assert host.now == IN_GRACE
    assert host.metric("clock_error_seconds") == pytest.approx(-15 * DAY, abs=60)
    assert host.manager.describe()["clock_error"] == pytest.approx(-15 * DAY, abs=60)
    await host.restart()
    await asyncio.sleep(14 * DAY)
    assert host.now == FREE
    await host.manager.stop()


@pytest.mark.parametrize("offset", [-5 * HOUR, 5 * HOUR, -500 * DAY, 500 * DAY])
def test_a_wrong_clock_is_corrected_by_the_server_and_reported(tmp_path, offset):
    async def live():
        host = Host(tmp_path / "state", offset=offset)
        await host.start()
        await asyncio.sleep(DAY)
        assert host.now == PRO
        assert host.manager.describe()["clock_error"] == pytest.approx(offset, abs=2)
        assert not host.manager.healthy
        host.offset = 0.0
        await host.restart()
        await asyncio.sleep(DAY)
        assert host.now == PRO
        assert host.manager.healthy
        assert "clock_error" not in host.manager.describe()
        await host.manager.stop()

    fake_time.run(live())


# -- without a licence, and reloads


@pytest.mark.parametrize(
    ("tier", "required", "expected"),
    [
        (None, False, (Tier.ENTERPRISE, Basis.EVALUATION)),
        (Tier.FREE, False, (Tier.FREE, Basis.CONFIGURED)),
        (Tier.PRO, True, (Tier.FREE, Basis.REQUIRED)),
    ],
)
def test_without_a_licence_the_configuration_decides(tier, required, expected):
    async def live():
        host = Host(required=required)
        await host.manager.start(None, tier)
        assert host.now == expected
        assert host.manager.healthy
        assert host.manager.describe() == {"tier": expected[0].value, "basis": expected[1].value}
        await host.manager.stop()

    fake_time.run(live())


@simulated
async def test_a_licence_decides_also_against_a_higher_tier_of_the_configuration():
    host = Host(required=True)
    await host.start(Tier.ENTERPRISE)
    assert host.now == PRO
    await host.manager.stop()


@simulated
async def test_a_reload_applies_new_settings_and_keeps_what_has_not_changed():
    host = Host()
    await host.start()
    await host.start()
    assert len(host.seen) == 1
    await host.start(key=ISSUER.issue(tier="enterprise"), url=None)
    assert host.now == (Tier.ENTERPRISE, Basis.LICENSE)
    await host.manager.start(None, Tier.FREE)
    assert host.now == (Tier.FREE, Basis.CONFIGURED)
    assert [each.tier for each in host.seen] == [Tier.PRO, Tier.ENTERPRISE, Tier.FREE]
    await host.manager.stop()


@simulated
async def test_a_subscriber_that_has_ended_is_not_called():
    host = Host()
    seen = []
    host.manager.subscribe(seen.append)()
    await host.start()
    assert not seen
    await host.manager.stop()


@simulated
async def test_a_licence_in_a_file_is_read_again_when_it_changes(tmp_path):
    file = tmp_path / "license"
    file.write_text(ISSUER.issue())
    host = Host()
    settings = LicenseConfig(file=str(file), public_keys=[ISSUER.public])
    await host.manager.start(settings, None, None)
    assert host.now == PRO
    file.write_text("damaged")
    await asyncio.sleep(2 * TICK)
    assert host.now == PRO  # the old one stays in use
    assert host.metric("rejected", reason="malformed") == 1
    file.write_text(ISSUER.issue(tier="enterprise"))
    await asyncio.sleep(2 * TICK)
    assert host.now == (Tier.ENTERPRISE, Basis.LICENSE)
    await host.manager.stop()


def test_the_variable_of_distributors():
    assert license_required({"OTELWP_REQUIRE_LICENSE": "1"})
    assert not license_required({"OTELWP_REQUIRE_LICENSE": "0"})
    assert not license_required({})


def test_an_agent_without_a_licence_imports_no_cryptography():
    code = (
        "import sys, asyncio\n"
        "import otelwp_agent.service.service\n"
        "from otelwp_agent.licensing.manager import LicenseManager\n"
        "from otelwp_agent.telemetry.metrics import Registry\n"
        "manager = LicenseManager(Registry(), None, required=False)\n"
        "print(sorted({'jwt', 'cryptography', 'otelwp_agent.licensing.watch'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "[]\n"
