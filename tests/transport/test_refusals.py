from otelwp_agent.telemetry.metrics import Registry
from otelwp_agent.transport.refusals import refusals


def test_refusals_are_counted_by_receiver_transport_and_reason():
    registry = Registry()
    count = refusals(registry, "otlp", "grpc")
    count("malformed")
    count("malformed")
    count("overloaded")
    value = registry.value
    assert value("otelwp_receiver_refused_requests", receiver="otlp", transport="grpc", reason="malformed") == 2
    assert value("otelwp_receiver_refused_requests", reason="overloaded") == 1
