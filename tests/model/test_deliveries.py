from otelwp_agent.model.deliveries import Deliveries


def test_sums_are_by_exporter_and_tenant_and_nothing_is_counted_without_a_tenant():
    deliveries = Deliveries()
    deliveries.add("otlp", "a", 3, 0)
    deliveries.add("otlp", "a", 2, 1)
    deliveries.add("otlp", "b", 0, 4)
    deliveries.add("jaeger", "a", 1, 0)
    deliveries.add("jaeger", "", 9, 9)
    assert sorted(deliveries) == [("jaeger", "a", 1, 0), ("otlp", "a", 5, 1), ("otlp", "b", 0, 4)]
