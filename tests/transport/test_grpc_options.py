"""Settings of a gRPC server as grpcio's channel arguments; tests/transport/test_grpc_server.py shows that they work."""

from otelwp_agent.config import blocks
from otelwp_agent.transport.grpc_options import channel_arguments


def arguments(**settings):
    return dict(channel_arguments(blocks.GrpcServer(**settings)))


def test_the_defaults_bound_connections_calls_messages_and_waiting():
    assert arguments() == {
        "grpc.so_reuseport": 1,
        "grpc.max_receive_message_length": 20 * 2**20,
        "grpc.max_concurrent_streams": 100,
        "grpc.max_allowed_incoming_connections": 4096,
        "grpc.server_handshake_timeout_ms": 10_000,
        "grpc.max_connection_idle_ms": 600_000,
    }


def test_keepalive():
    limits = {"max_connection_idle": "5s", "max_connection_age": "6s", "max_connection_age_grace": "7s"}
    limits |= {"time": "8s", "timeout": "9s"}
    policy = {"min_time": "10s", "permit_without_stream": True}
    found = arguments(keepalive={"server_parameters": limits, "enforcement_policy": policy})
    assert found["grpc.max_connection_idle_ms"] == 5000
    assert found["grpc.max_connection_age_ms"] == 6000
    assert found["grpc.max_connection_age_grace_ms"] == 7000
    assert found["grpc.keepalive_time_ms"] == 8000
    assert found["grpc.keepalive_timeout_ms"] == 9000
    assert found["grpc.http2.min_ping_interval_without_data_ms"] == 10_000
    assert found["grpc.keepalive_permit_without_calls"] == 1


def test_an_idle_time_of_zero_keeps_idle_connections():
    found = arguments(keepalive={"server_parameters": {"max_connection_idle": "0s"}})
    assert "grpc.max_connection_idle_ms" not in found
