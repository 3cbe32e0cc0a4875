import asyncio
import math

import pytest
from pydantic import ValidationError

from otelwp_agent.errors import ForbiddenError, RateLimitedError, StartError, UnauthenticatedError
from otelwp_agent.extensions.rate_limiter import MAX_ALLOWANCES, Config
from otelwp_agent.extensions.rate_limiter.limits import REUSED
from otelwp_agent.transport.authentication import Client
from tests.kit.rate_limits import ACME, OTHER, ROUTE, Limiter, outcome, requests

# -- rates


def test_a_request_above_the_rate_is_refused_with_the_exact_wait_and_the_name_of_the_limit():
    made = Limiter(**requests(burst=20))
    assert [made.begin(ACME) for _ in range(20)] == [None] * 20
    error = made.begin(ACME)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == pytest.approx(0.1)
    assert str(error) == "limit exceeded: 10 requests per second for each tenant, burst 20"
    assert (error.quota, error.remaining, error.reset_after) == (20, 0, pytest.approx(2.0))
    made.clock.now += 0.1
    assert made.begin(ACME) is None
    assert made.begin(ACME) is not None


def test_the_default_burst_is_that_of_one_second_and_at_least_one_request():
    made = Limiter(**requests())
    assert sum(made.begin(ACME) is None for _ in range(50)) == 10
    slow = Limiter(limits=[{"key": "tenant", "requests_per_second": 0.01}])
    assert sum(slow.begin(ACME) is None for _ in range(50)) == 1
    assert slow.begin(ACME).retry_after == pytest.approx(100)
    assert "36 requests per hour" in str(slow.begin(ACME))


@pytest.mark.parametrize(
    ("key", "same", "different"),
    [
        ("tenant", (Client("acme", "another key"), "198.51.100.1", "/other"), (OTHER, "192.0.2.1", ROUTE)),
        ("credential", (Client("other", "key-1"), "198.51.100.1", "/other"), (OTHER, "192.0.2.1", ROUTE)),
        ("address", (OTHER, "192.0.2.1", "/other"), (ACME, "192.0.2.2", ROUTE)),
        ("route", (OTHER, "192.0.2.2", ROUTE), (ACME, "192.0.2.1", "/other")),
    ],
)
def test_each_key_has_its_own_limit(key, same, different):
    made = Limiter(**requests(key, burst=1))
    assert made.begin(ACME) is None
    assert made.begin(*same) is not None
    assert made.begin(*different) is None


def test_senders_without_a_tenant_share_one_limit():
    made = Limiter(**requests(burst=1))
    assert made.begin(None, "192.0.2.1") is None
    assert made.begin(None, "192.0.2.2") is not None


def test_an_ipv6_network_is_one_address_and_unix_sockets_have_none():
    made = Limiter(**requests("address", burst=1))
    assert made.begin(peer="2001:db8::1") is None
    assert made.begin(peer="2001:db8::2") is not None
    assert [made.begin(peer="") for _ in range(5)] == [None] * 5


def test_a_request_must_be_within_all_limits_and_is_charged_to_all_or_none():
    made = Limiter(
        limits=[
            {"key": "tenant", "requests_per_second": 1, "burst": 3},
            {"key": "address", "requests_per_second": 1, "burst": 2},
        ]
    )
    assert [made.begin(ACME) for _ in range(2)] == [None, None]
    assert [made.begin(ACME) is None for _ in range(5)] == [False] * 5
    assert made.begin(ACME, "192.0.2.2") is None  # refused requests were not charged to the tenant
    assert "each tenant" in str(made.begin(ACME, "192.0.2.2"))


def test_allowances_are_kept_for_the_same_client_address_and_route():
    made = Limiter(**requests())
    first = made.allowance(ACME)
    assert made.allowance(ACME) is first
    same = Client(tenant="acme", credential="key-1")
    for other in (made.allowance(same), made.allowance(ACME, peer="192.0.2.2"), made.allowance(ACME, route="/v1/logs")):
        assert other is not first
    for number in range(2 * MAX_ALLOWANCES):
        made.allowance(ACME, route=f"/{number}")
    assert len(made.limiter._allowances) <= MAX_ALLOWANCES


# -- items and bytes


def test_items_and_bytes_are_charged_when_they_are_counted():
    made = Limiter(
        limits=[
            {"key": "tenant", "items_per_second": 100, "burst": 100},
            {"key": "tenant", "bytes_per_second": "1KiB", "burst": "2KiB"},
        ]
    )
    allowance = made.allowance(ACME)
    assert outcome(allowance.charge, 60, 1000) is None
    error = outcome(allowance.charge, 60, 1000)
    assert "100 items per second" in str(error)
    assert error.retry_after == pytest.approx(0.2)
    error = outcome(allowance.charge, 1, 1049)
    assert "1024 bytes per second" in str(error)
    assert outcome(allowance.charge, 40, 1048) is None  # what a limit refused is not charged to the others


def test_a_refund_is_available_again():
    made = Limiter(limits=[{"key": "tenant", "items_per_second": 100, "burst": 100}])
    allowance = made.allowance(ACME)
    allowance.charge(100, 5)
    assert outcome(allowance.charge, 100, 5) is not None
    allowance.refund(100, 5)
    assert outcome(allowance.charge, 100, 5) is None
    Limiter(**requests()).allowance(ACME).refund(100, 5)


def test_a_sender_without_items_left_is_refused_before_its_body_is_read():
    made = Limiter(limits=[{"key": "tenant", "items_per_second": 100, "burst": 100}])
    allowance = made.allowance(ACME)
    allowance.charge(250, 5)
    error = outcome(allowance.begin)
    assert error.retry_after == pytest.approx(1.51)
    made.clock.now += 1.52
    assert outcome(allowance.begin) is None


# -- requests in progress


def test_requests_in_progress_are_limited():
    made = Limiter(limits=[{"key": "tenant", "concurrent_requests": 2}])
    first, second = made.allowance(ACME), made.allowance(ACME)
    first.begin()
    second.begin()
    error = outcome(first.begin)
    assert (str(error), error.retry_after) == ("limit exceeded: 2 requests in progress for each tenant", 1.0)
    second.end()
    assert outcome(first.begin) is None


def test_a_request_that_a_rate_refuses_is_not_in_progress():
    made = Limiter(limits=[{"key": "tenant", "requests_per_second": 1, "burst": 1, "concurrent_requests": 2}])
    allowance = made.allowance(ACME)
    allowance.begin()
    assert [str(outcome(allowance.begin))[16:26] for _ in range(5)] == ["1 requests"] * 5
    made.clock.now += 1
    assert outcome(allowance.begin) is None


# -- plans


def test_the_figures_of_a_plan_replace_those_of_tenants():
    made = Limiter(
        limits=[
            {"key": "tenant", "requests_per_second": 10, "burst": 20, "concurrent_requests": 100},
            {"key": "address", "concurrent_requests": 500},
        ]
    )
    plan = {"requests_per_second": 100.0, "concurrent_requests": 250}
    big, small = Client("big", limits=plan), Client("small", limits={"requests_per_second": 1, "request_burst": 3})
    assert sum(made.begin(big) is None for _ in range(240)) == 100
    assert sum(made.begin(small) is None for _ in range(500)) == 3
    assert "1 requests per second for each tenant, burst 3" in str(made.begin(small))


def test_the_limits_of_a_plan_need_no_configured_ones():
    made = Limiter()
    client = Client("small", limits={"items_per_second": 10, "item_burst": 20, "bytes_per_second": 1e6})
    allowance = made.allowance(client)
    assert outcome(allowance.charge, 20, 500) is None
    assert "10 items per second for each tenant, burst 20" in str(outcome(allowance.charge, 1, 5))
    assert [made.begin(Client("free")) for _ in range(500)] == [None] * 500
    assert made.begin(Client("one", limits={"concurrent_requests": 1})) is None
    assert made.begin(Client("one", limits={"concurrent_requests": 1})) is not None


def test_a_plan_may_have_no_limit():
    made = Limiter(limits=[{"key": "tenant", "requests_per_second": 1, "concurrent_requests": 1}])
    free = Client("free", limits={"requests_per_second": math.inf, "concurrent_requests": math.inf})
    assert [made.begin(free) for _ in range(50)] == [None] * 50


@pytest.mark.parametrize("figure", [0, -1, math.nan, "many", None])
def test_invalid_figures_of_a_plan_are_ignored(figure):
    made = Limiter(**requests(burst=2, concurrent_requests=5))
    client = Client("odd", limits={"requests_per_second": figure, "concurrent_requests": figure})
    assert sum(made.begin(client) is None for _ in range(50)) == 2


# -- the preset


@pytest.mark.parametrize(
    ("route", "allowed"), [("/v1/traces", 100), ("/api/auth/login", 10), ("/payment", 50), ("/billing", 100)]
)
def test_the_preset_limits_classes_of_routes(route, allowed):
    made = Limiter(preset="founding")
    assert sum(made.begin(ACME, route=route) is None for _ in range(500)) == allowed
    assert made.begin(OTHER, route=route) is None
    assert sum(made.begin(None, "192.0.2.9", route) is None for _ in range(500)) == allowed


# -- access and bans


def test_denied_addresses_are_refused_before_authentication():
    made = Limiter(access={"deny": ["192.0.2.0/24", "2001:db8::/32"]})
    made.limiter.check("198.51.100.1")
    made.limiter.check("")
    for peer in ("192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"):
        error = outcome(made.limiter.check, peer)
        assert (type(error), error.reason) == (ForbiddenError, "denied_address")


def fail(made, peer, times):
    for _ in range(times):
        made.limiter.authentication_failed(peer, UnauthenticatedError())


def test_an_address_that_fails_to_authenticate_is_banned(capfd):
    made = Limiter(ban={"failures": 3, "window": "1m", "duration": "10s"})
    fail(made, "192.0.2.1", 2)
    made.limiter.authentication_failed("192.0.2.1", ForbiddenError("no"))
    made.limiter.check("192.0.2.1")
    fail(made, "192.0.2.1", 1)
    assert outcome(made.limiter.check, "192.0.2.1").reason == "banned"
    assert made.begin(ACME, "192.0.2.1").reason == "banned"  # a connection that was admitted before
    assert made.begin(ACME, "192.0.2.2") is None
    made.clock.now += 10
    made.limiter.check("192.0.2.1")
    assert made.registry.value("otelwp_rate_limiter_bans") == 1
    assert capfd.readouterr().err.count("address banned") == 1


def test_unix_sockets_are_never_banned():
    made = Limiter(ban={"failures": 1})
    fail(made, "", 100)
    made.limiter.check("")
    assert made.begin(ACME, "") is None


def test_failed_requests_count_as_requests_of_their_address():
    made = Limiter(**requests("address", burst=3))
    fail(made, "192.0.2.1", 3)
    error = outcome(made.limiter.check, "192.0.2.1")
    assert "10 requests per second for each address" in str(error)
    made.limiter.check("192.0.2.2")


def test_a_million_wrong_credentials_from_many_addresses_take_bounded_memory():
    made = Limiter(**requests("address"), ban={"failures": 5})
    for number in range(70_000):
        fail(made, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1)
    assert len(made.limiter._bans) <= 65_536
    assert len(made.limiter._limits.rates[0].rates) <= 65_536 + 1024


# -- refusals and metrics


def test_one_refusal_is_used_for_some_milliseconds_and_never_too_short():
    made = Limiter(**requests(burst=1))
    allowance = made.allowance(ACME)
    allowance.begin()
    first = outcome(allowance.begin)
    made.clock.now += REUSED / 2
    second = outcome(allowance.begin)
    assert second is first
    assert second.retry_after >= 0.1 - REUSED / 2
    depth = 0
    at = second.__traceback__
    while at is not None:
        depth, at = depth + 1, at.tb_next
    assert depth <= 4  # raising it again does not make its traceback longer
    made.clock.now += REUSED
    third = outcome(allowance.begin)
    assert third is not first
    assert third.retry_after == pytest.approx(0.1 - 1.5 * REUSED)


def test_metrics_name_the_most_active_tenants_only():
    made = Limiter(**requests(burst=1), top_tenants=3)
    for number in range(50):
        client = Client(f"tenant-{number}")
        made.begin(client)
        made.begin(client)
    value = made.registry.value
    assert value("otelwp_rate_limiter_accepted_requests") == 50
    assert value("otelwp_rate_limiter_accepted_requests", tenant="other") == 47
    assert value("otelwp_rate_limiter_refused_requests", limit="tenant_requests", tenant="other") == 47
    assert value("otelwp_rate_limiter_refused_requests", tenant="tenant-1") == 1
    assert value("otelwp_rate_limiter_keys", limit="tenant_requests") == 50


def test_a_tenant_that_is_no_longer_active_loses_its_label():
    made = Limiter(**requests(), top_tenants=1)
    made.begin(Client("quiet"))
    for _ in range(5):
        made.begin(Client("busy"))
    made.clock.now += 100
    made.begin(Client("busy"))
    assert 'tenant="quiet"' not in made.registry.expose()
    made.begin(Client("busy"))
    assert made.registry.value("otelwp_rate_limiter_accepted_requests", tenant="busy") >= 1


# -- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limits": [{"key": "tenant"}]}, "nothing is limited"),
        ({"limits": [{"key": "planet", "requests_per_second": 1}]}, "'tenant', 'credential', 'address' or 'route'"),
        ({"limits": [{"key": "tenant", "requests_per_second": 0}]}, "greater than 0"),
        ({"limits": [{"key": "tenant", "requests_per_second": float("inf")}]}, "1000000000000|finite"),
        ({"limits": [{"key": "tenant", "bytes_per_second": "many"}]}, "not a size"),
        ({"limits": [{"key": "tenant", "concurrent_requests": 0}]}, "greater than 0"),
        ({"limits": [{"key": "tenant", "concurrent_requests": 1, "burst": 5}]}, "`burst` belongs to a rate"),
        ({"limits": [{"key": "tenant", "requests_per_second": 1, "items_per_second": 1}]}, "several rates"),
        ({"limits": [*requests()["limits"], *requests()["limits"]]}, "two limits of the requests of each tenant"),
        ({"access": {"deny": ["10.0.0.1/8"]}}, "write `10.0.0.0/8`"),
        ({"access": {"allow": ["shop.example"]}}, "not an address or network"),
        ({"ban": {"failures": 0}}, "greater than or equal to 1"),
        ({"ban": {}, "throttle_status": 500}, "429 or 503"),
        ({"preset": "other"}, "founding"),
        ({"ban": {}, "redis": {}}, "url"),
        ({"ban": {}, "redis": {"url": "redis://x", "prefix": "{a}"}}, "pattern"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate(settings)


async def test_an_invalid_redis_url_is_an_error_at_the_start():
    made = Limiter(**requests(), redis={"url": "http://127.0.0.1"})
    with pytest.raises(StartError, match=r"redis\.url"):
        await made.limiter.start()


async def test_without_redis_each_agent_allows_its_share():
    made = Limiter(**requests(burst=20), redis={"url": "redis://127.0.0.1:1", "replicas": 4})
    await made.limiter.start()
    assert sum(made.begin(ACME) is None for _ in range(100)) == 5
    async with asyncio.timeout(60):
        while not made.registry.value("otelwp_rate_limiter_redis_failures", reason="connection"):
            await asyncio.sleep(0.01)  # the connection is refused in the background
    health = made.limiter.health()
    assert (health.healthy, health.details) == (True, {"redis": "unreachable"})
    assert "Redis is unreachable" in health.message
    assert made.registry.value("otelwp_rate_limiter_redis_connected") == 0
    await made.limiter.shutdown()
    await made.limiter.shutdown()


async def test_idle_keys_are_forgotten(monkeypatch):
    monkeypatch.setattr("otelwp_agent.extensions.rate_limiter.TIDY", 0.01)
    made = Limiter(**requests(), ban={"failures": 5})
    await made.limiter.start()
    made.begin(ACME)
    fail(made, "192.0.2.1", 1)
    made.clock.now += 1e6
    async with asyncio.timeout(60):
        while len(made.limiter._limits.rates[0].rates) or len(made.limiter._bans):
            await asyncio.sleep(0.01)  # the timer of the extension
    await made.limiter.shutdown()
    assert made.limiter.health() is None


# -- behind servers
