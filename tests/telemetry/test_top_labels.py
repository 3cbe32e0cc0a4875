from otelwp_agent.telemetry.metrics import Instrument, Registry
from otelwp_agent.telemetry.top_labels import OTHER, PERIOD, TopLabels
from otelwp_agent.testing.fakes import FakeClock

REQUESTS = Instrument("otelwp_test_requests", "Requests.", labels=("tenant",))


def test_names_beyond_the_capacity_are_other():
    top = TopLabels(2, FakeClock())
    assert [top.label(name) for name in ("a", "b", "c", "a", "c")] == ["a", "b", OTHER, "a", OTHER]


def test_without_a_capacity_all_names_are_other():
    assert TopLabels(0, FakeClock()).label("a") == OTHER


def test_the_most_active_names_replace_the_others_after_a_period():
    clock, removed = FakeClock(), []
    top = TopLabels(2, clock, removed.append)
    for name in ("quiet", "busy", *["busy"] * 100, *["new"] * 50):
        top.label(name)
    clock.now += PERIOD
    assert top.label("new") == OTHER
    assert removed == ["quiet"]
    assert [top.label(name) for name in ("new", "busy", "quiet")] == ["new", "busy", OTHER]


def test_a_million_names_have_a_bounded_number_of_labels_and_no_counter_decreases():
    clock, registry = FakeClock(), Registry()
    top = TopLabels(5, clock, lambda name: registry.remove(REQUESTS, tenant=name))
    other = registry.counter(REQUESTS, tenant=OTHER)
    seen = 0.0
    for number in range(20_000):
        registry.counter(REQUESTS, tenant=top.label(f"tenant-{number % 9000}")).add()
        clock.now += 0.1
        assert other.value >= seen
        seen = other.value
    assert registry.expose().count("otelwp_test_requests{") <= 6
    assert len(top._candidates) <= 20
