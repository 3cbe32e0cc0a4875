import structlog

from otelwp_agent.errors import Overloaded
from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.overload import SHOWN, Drops


class Case:
    def __init__(self):
        self.now = 0.0
        self.registry = Registry()
        self.drops = Drops("otlp", self.registry, structlog.get_logger(), lambda: self.now)

    def count(self, what, site):
        return self.registry.value(f"otelwp_receiver_dropped_{what}", receiver="otlp", site=site)


def refused(items=0):
    error = Overloaded("the queue is full")
    error.items = items
    return error


def test_drops_are_counted_by_site():
    case = Case()
    assert case.drops.add(refused(7), "WordPress/6.1; http://a.example") == 7
    assert case.drops.add(refused(), "WordPress/6.1; http://a.example") == 0
    case.drops.add(refused(), "curl")
    assert (case.count("requests", "a.example"), case.count("items", "a.example")) == (2, 7)
    assert case.count("requests", "unknown") == 1


def test_health_is_bad_for_a_minute_after_the_last_drop():
    case = Case()
    assert case.drops.state() is None
    case.drops.add(refused(7))
    case.now = SHOWN - 1
    case.drops.add(refused())
    case.now = 2 * SHOWN - 1
    assert case.drops.state() == (
        False,
        "2 requests (7 items counted) were answered and dropped: the queue is full",
        {"dropped_requests": 2, "dropped_items": 7},
    )
    case.now += 0.1
    assert case.drops.state()[:2] == (True, "")
    case.now += 1
    case.drops.add(refused())
    assert case.drops.state()[1] == "1 requests were answered and dropped: the queue is full"


def test_the_log_says_it_once_a_minute():
    case = Case()
    with structlog.testing.capture_logs() as logs:
        case.drops = Drops("otlp", case.registry, structlog.get_logger(), lambda: case.now)
        for _ in range(100):
            case.drops.add(refused())
        case.now = SHOWN
        case.drops.add(refused())
    assert [(line["log_level"], line["requests"]) for line in logs] == [("error", 1), ("error", 100)]


def test_it_is_there_only_where_drops_are_meant():
    drops = Case().drops
    assert drops.when("refuse") is None
    assert drops.when("accept_and_drop") is drops
