"""Translate the settings of a gRPC server to grpcio's channel arguments and credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.transport.grpc_runtime import grpc

if TYPE_CHECKING:
    from otelwp_agent.config import blocks
    from otelwp_agent.transport.tls import ServerTls

HANDSHAKE_TIMEOUT = 10.0
"""Maximum number of seconds for TLS and the HTTP/2 preface. The default of grpcio is 120."""
CONNECTION_IDLE = 600.0
"""Seconds after which a connection without calls is closed, unless `keepalive` sets another value."""


def channel_arguments(settings: blocks.GrpcServer) -> list[tuple[str, int]]:
    """Return grpcio's channel arguments for `settings` (grpc/impl/channel_arg_names.h)."""
    options = [
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_recv_msg_size_mib * 2**20),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
    ]
    times: list[tuple[str, float | None]] = [("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT)]
    keepalive = settings.keepalive
    limits = keepalive.server_parameters if keepalive is not None else None
    idle = limits.max_connection_idle if limits is not None else None
    times.append(("grpc.max_connection_idle_ms", CONNECTION_IDLE if idle is None else idle))
    if limits is not None:
        times += [
            ("grpc.max_connection_age_ms", limits.max_connection_age),
            ("grpc.max_connection_age_grace_ms", limits.max_connection_age_grace),
            ("grpc.keepalive_time_ms", limits.time),
            ("grpc.keepalive_timeout_ms", limits.timeout),
        ]
    if keepalive is not None and (policy := keepalive.enforcement_policy) is not None:
        times.append(("grpc.http2.min_ping_interval_without_data_ms", policy.min_time))
        options.append(("grpc.keepalive_permit_without_calls", int(policy.permit_without_stream)))
    return options + [(name, int(seconds * 1000)) for name, seconds in times if seconds]


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return credentials that use the latest certificate of `tls`.

    grpcio asks for it before each handshake, on a thread of its own.
    """
    used = tls.pem

    def configuration() -> grpc.ServerCertificateConfiguration:
        pem = used
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authorities or None)

    def latest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        if tls.pem is used:
            return None
        used = tls.pem
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), latest, bool(used.authorities))  # type: ignore[arg-type]  # None: no change
