import math

import structlog

from otelwp_agent.component import ComponentId, Context, Kind
from otelwp_agent.processors.adaptive_sampling.key_metrics import CHOOSE_EVERY, KeyMetrics
from otelwp_agent.sampling.adaptive import reporting
from otelwp_agent.sampling.adaptive.controller import Controller
from otelwp_agent.sampling.adaptive.policy import Budget, Policy
from otelwp_agent.sampling.adaptive.trace import Trace
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.testing import NoHost

RATE = "otelwp_processor_adaptive_sampling_key_traces_per_second"


def made(most):
    now = [0.0]
    context = Context(
        ComponentId("adaptive_sampling"),
        Kind.PROCESSOR,
        Registry(),
        structlog.get_logger(),
        lambda: now[0],
        NoHost(),
        "traces",
    )
    controller = Controller(Policy(Budget.traces_per_second(1000)), 0.0)
    return KeyMetrics(context, controller, most), controller, context.registry, now


def feed(controller, now, **rates):
    for second in range(10):
        for key, rate in rates.items():
            for _ in range(rate):
                controller.decide(Trace(1 << 55, key=(key, "x"), duration=0.2, error=key == "bad"), now[0] + second)
        controller.tick(now[0] + second + 1)
    now[0] += 10


def test_estimates_of_keys_with_their_bounds():
    metrics, controller, registry, now = made(5)
    feed(controller, now, good=20, bad=2)
    metrics.choose(now[0])
    of = {"key": "good|x", "processor": "adaptive_sampling", "pipeline": "traces"}
    assert [registry.value(RATE, bound=bound, **of) for bound in ("estimate", "low", "high")] == [20, 20, 20]
    errors = "otelwp_processor_adaptive_sampling_key_error_ratio"
    assert registry.value(errors, key="bad|x", bound="estimate") == 1
    assert registry.value(errors, key="good|x", bound="high") == 0
    duration = "otelwp_processor_adaptive_sampling_key_duration_seconds"
    assert math.isclose(registry.value(duration, quantile="0.5", bound="estimate", **of), 0.2, rel_tol=0.1)
    assert registry.value("otelwp_processor_adaptive_sampling_key_probability", **of) == 1
    assert registry.expose().count("good|x") == 16


def test_only_so_many_keys_those_with_the_most_traffic_now():
    metrics, controller, registry, now = made(2)
    feed(controller, now, a=20, b=10, c=1)
    metrics.choose(now[0])
    assert metrics.due == now[0] + CHOOSE_EVERY
    assert [key for key in "abc" if registry.value(RATE, key=f"{key}|x", bound="estimate")] == ["a", "b"]
    for _ in range(4):
        feed(controller, now, a=20, c=40)
    metrics.choose(now[0])
    assert [key for key in "abc" if f'key="{key}|x"' in registry.expose()] == ["a", "c"]


def test_what_was_replaced_takes_its_keys_away_and_leaves_those_of_its_successor():
    metrics, controller, registry, now = made(5)
    feed(controller, now, a=5, b=5)
    metrics.choose(now[0])
    successor = KeyMetrics(metrics._context, controller, 1)
    successor.choose(now[0])
    metrics.close()
    assert "_key_" not in "".join(line for line in registry.expose().splitlines() if line[0] != "#")
    successor.choose(now[0] + CHOOSE_EVERY)
    assert registry.expose().count("a|x") + registry.expose().count("b|x") == 16
    assert metrics.due == math.inf


def test_none_at_all():
    metrics, controller, registry, now = made(0)
    feed(controller, now, a=5)
    metrics.choose(now[0])
    assert registry.expose() == ""
    assert metrics.due > now[0]


def test_a_report_is_computed_once_a_second(monkeypatch):
    metrics, controller, registry, now = made(1)
    feed(controller, now, a=5)
    metrics.choose(now[0])
    calls = []
    report = reporting.report
    monkeypatch.setattr(reporting, "report", lambda *of: calls.append(of) or report(*of))
    registry.expose()
    registry.expose()
    assert len(calls) == 1
    now[0] += 1
    registry.expose()
    assert len(calls) == 2
