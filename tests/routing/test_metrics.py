from __future__ import annotations

from otelwp_agent.routing.metrics import DestinationMetrics
from otelwp_agent.telemetry.metrics import Registry


def test_the_gauges_of_a_connector_end_with_it_unless_a_successor_has_replaced_them():
    registry = Registry()
    old, new = DestinationMetrics(registry, "failover"), DestinationMetrics(registry, "failover")
    old.show_share("a", "traces", lambda: 0.5)
    assert registry.value("otelwp_destination_share", destination="a") == 0.5
    new.show_share("a", "traces", lambda: 0.25)
    old.close()
    assert registry.value("otelwp_destination_share", connector="failover") == 0.25
    new.close()
    new.close()
    assert registry.value("otelwp_destination_share") == 0


def test_items_are_counted_by_destination():
    registry = Registry()
    metrics = DestinationMetrics(registry, "failover")
    metrics.forwarded("a", 3)
    metrics.moved("a", "b", 2)
    assert registry.value("otelwp_destination_items", destination="a") == 3
    assert registry.value("otelwp_destination_moved_items", destination="a", to="b") == 2
