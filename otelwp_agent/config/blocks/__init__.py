"""Groups of settings that components share, with the OpenTelemetry Collector's names and defaults."""

from otelwp_agent.config.blocks.auth import ClientAuth, HttpServerAuth, Middleware, ServerAuth
from otelwp_agent.config.blocks.ban import Ban
from otelwp_agent.config.blocks.base import Block, Headers, SecretHeaders
from otelwp_agent.config.blocks.grpc import (
    GrpcClient,
    GrpcClientKeepalive,
    GrpcKeepalive,
    GrpcKeepaliveEnforcement,
    GrpcKeepaliveServer,
    GrpcServer,
)
from otelwp_agent.config.blocks.http import (
    Compression,
    CompressionParams,
    Cookies,
    Cors,
    Encoding,
    HttpClient,
    HttpReceiver,
    HttpServer,
    HttpUrl,
)
from otelwp_agent.config.blocks.local_http import AllowedHosts, LocalHttpServer
from otelwp_agent.config.blocks.network import Dialer, Listening, NetworkServer
from otelwp_agent.config.blocks.sealed import Deduplication, Sealed
from otelwp_agent.config.blocks.sending import CircuitBreaker, Queue, QueueBatch, QueueBatchPartition, Retry
from otelwp_agent.config.blocks.tls import TlsClient, TlsFiles, TlsServer, TlsVersion
from otelwp_agent.config.blocks.watchdog import Watchdog

__all__ = [
    "AllowedHosts",
    "Ban",
    "Block",
    "CircuitBreaker",
    "ClientAuth",
    "Compression",
    "CompressionParams",
    "Cookies",
    "Cors",
    "Deduplication",
    "Dialer",
    "Encoding",
    "GrpcClient",
    "GrpcClientKeepalive",
    "GrpcKeepalive",
    "GrpcKeepaliveEnforcement",
    "GrpcKeepaliveServer",
    "GrpcServer",
    "Headers",
    "HttpClient",
    "HttpReceiver",
    "HttpServer",
    "HttpServerAuth",
    "HttpUrl",
    "Listening",
    "LocalHttpServer",
    "Middleware",
    "NetworkServer",
    "Queue",
    "QueueBatch",
    "QueueBatchPartition",
    "Retry",
    "Sealed",
    "SecretHeaders",
    "ServerAuth",
    "TlsClient",
    "TlsFiles",
    "TlsServer",
    "TlsVersion",
    "Watchdog",
]
