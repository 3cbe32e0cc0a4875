"""The blocks of settings that components share, with the OpenTelemetry Collector's names and defaults."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from otelwp_agent.config.types import ByteSize, Duration, Endpoint, PositiveDuration, Secret

Encoding = Literal["", "gzip", "zstd", "zlib", "deflate"]
Compression = Literal["none", "", "gzip", "zstd", "deflate", "zlib"]
TlsVersion = Literal["1.2", "1.3"]


class Block(BaseModel):
    """A group of settings: unknown keys are refused, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class TlsServer(Block):
    """TLS of a server; mutual TLS when `client_ca_file` is given."""

    cert_file: str
    """PEM file of the certificate chain."""
    key_file: str
    """PEM file of its private key."""
    client_ca_file: str | None = None
    """PEM file of the authorities that clients must be signed by; clients without such a certificate are refused."""
    min_version: TlsVersion = "1.2"
    """Oldest TLS version accepted."""
    max_version: TlsVersion | None = None
    """Newest TLS version accepted; the newest there is if left out."""
    reload_interval: Duration = 0.0
    """How often the files are looked at for change; 0 reloads on SIGHUP alone."""


class TlsClient(Block):
    """TLS of a client."""

    insecure: bool = False
    """Speak without TLS."""
    insecure_skip_verify: bool = False
    """Do not verify the server's certificate."""
    ca_file: str | None = None
    """PEM file of the authorities that sign the server's certificate; the system's if left out."""
    include_system_ca_certs_pool: bool = False
    """Trust the system's authorities beside `ca_file`."""
    cert_file: str | None = None
    """PEM file of our own certificate, for mutual TLS."""
    key_file: str | None = None
    """PEM file of its private key."""
    server_name_override: str | None = None
    """Name expected in the server's certificate, if not the endpoint's."""
    min_version: TlsVersion = "1.2"
    """Oldest TLS version accepted."""
    max_version: TlsVersion | None = None
    """Newest TLS version accepted; the newest there is if left out."""
    reload_interval: Duration = 0.0
    """How often the files are looked at for change; 0 reloads on SIGHUP alone."""

    @model_validator(mode="after")
    def _cert_with_key(self) -> TlsClient:
        if (self.cert_file is None) != (self.key_file is None):
            message = "cert_file and key_file belong together: give both or neither"
            raise ValueError(message)
        return self


class Cors(Block):
    """Which web pages may send from a browser."""

    allowed_origins: list[str] = Field(default_factory=list)
    """Origins (`https://shop.example`), in which `*` stands for any characters. None: no CORS."""
    allowed_headers: list[str] = Field(default_factory=list)
    """Request headers allowed beyond the safelist; `*` for all."""
    exposed_headers: list[str] = Field(default_factory=list)
    """Response headers that the page may read."""
    max_age: int = 0
    """Seconds for which a browser may remember the answer; 0 leaves it to the browser."""


class HttpServer(Block):
    """An HTTP/1.1 server."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4318")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    tls: TlsServer | None = None
    """Serve HTTPS."""
    cors: Cors | None = None
    """Allow browsers on other origins."""
    max_request_body_size: ByteSize = 20 * 2**20
    """Largest body, before and after decompression."""
    compression_algorithms: tuple[Encoding, ...] = ("", "gzip", "zstd", "zlib", "deflate")
    """Content encodings accepted; "" is none."""
    include_metadata: bool = False
    """Accepted for the Collector's sake: `batch.metadata_keys` always sees the client's headers here."""
    response_headers: dict[str, str] = Field(default_factory=dict)
    """Headers added to every response."""
    read_timeout: Duration = 30.0
    """Time for a whole request to arrive; 0 for no limit."""
    read_header_timeout: Duration = 10.0
    """Time for the headers to arrive; 0 for no limit."""
    write_timeout: Duration = 30.0
    """Time for a response to be taken; 0 for no limit."""
    idle_timeout: Duration = 60.0
    """Time that an idle connection is kept; 0 for no limit."""
    keep_alives_enabled: bool = True
    """Keep connections open between requests."""
    max_connections: int = Field(4096, ge=1)
    """Connections served at once; more are answered 503 and closed."""
    backlog: int = Field(1024, ge=1)
    """Connections that the kernel keeps waiting to be accepted."""
    unix_mode: str = Field("0660", pattern="^0?[0-7]{3}$")
    """File mode of a unix socket."""
    unix_group: str | None = None
    """Group that owns a unix socket."""


class HttpClient(Block):
    """An HTTP/1.1 client."""

    endpoint: Endpoint | None = None
    """Base URL (`https://collector.example:4318`) or `unix:///path`."""
    tls: TlsClient = TlsClient()
    """TLS, for https:// endpoints."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Headers added to every request. Values are secrets."""
    compression: Compression = "gzip"
    """How bodies are compressed: gzip, zstd, deflate, zlib or none."""
    timeout: PositiveDuration = 30.0
    """Time for one request, from connecting to the last byte of the response."""
    max_conns_per_host: int = Field(0, ge=0)
    """Connections open at once; 0 for as many as the queue has consumers."""
    idle_conn_timeout: Duration = 90.0
    """Time that an idle connection is kept."""
    disable_keep_alives: bool = False
    """Open a connection for every request."""


class GrpcKeepaliveServer(Block):
    """Limits on a connection's age and silence."""

    max_connection_idle: Duration | None = None
    """Close a connection without calls after this long."""
    max_connection_age: Duration | None = None
    """Close a connection after this long."""
    max_connection_age_grace: Duration | None = None
    """Time for its calls to end then."""
    time: Duration | None = None
    """Ping a silent client after this long."""
    timeout: Duration | None = None
    """Close the connection if the ping is not answered within this time."""


class GrpcKeepaliveEnforcement(Block):
    """What pings a client may send."""

    min_time: Duration | None = None
    """Shortest time between pings."""
    permit_without_stream: bool = False
    """Allow pings without calls."""


class GrpcKeepalive(Block):
    """Keep-alive of a gRPC server."""

    server_parameters: GrpcKeepaliveServer | None = None
    """Limits on a connection's age and silence."""
    enforcement_policy: GrpcKeepaliveEnforcement | None = None
    """What pings a client may send."""


class GrpcServer(Block):
    """A gRPC server."""

    endpoint: Endpoint = Endpoint("127.0.0.1:4317")
    """`host:port` or `unix:///path` to listen on; port 0 picks a free one."""
    tls: TlsServer | None = None
    """Serve TLS."""
    max_recv_msg_size_mib: int = Field(20, ge=1, le=2047)
    """Largest message, in MiB, after decompression."""
    max_concurrent_streams: int | None = Field(None, ge=1)
    """Calls at once on one connection."""
    keepalive: GrpcKeepalive | None = None
    """Keep-alive settings."""
    include_metadata: bool = False
    """Accepted for the Collector's sake: `batch.metadata_keys` always sees the client's metadata here."""


class GrpcClientKeepalive(Block):
    """Keep-alive of a gRPC client."""

    time: Duration | None = None
    """Ping a silent server after this long."""
    timeout: Duration | None = None
    """Give the connection up if the ping is not answered within this time."""
    permit_without_stream: bool = False
    """Ping even without calls."""


class GrpcClient(Block):
    """A gRPC client."""

    endpoint: Endpoint
    """`host:port`, `https://host:port` (TLS), `http://host:port` (no TLS) or `unix:///path`."""
    tls: TlsClient = TlsClient()
    """TLS; on unless `insecure`."""
    headers: dict[str, Secret] = Field(default_factory=dict)
    """Metadata added to every call. Values are secrets."""
    compression: Literal["none", "", "gzip", "deflate"] = "gzip"
    """How messages are compressed; grpcio has gzip and deflate."""
    timeout: PositiveDuration = 5.0
    """Time for one call."""
    keepalive: GrpcClientKeepalive | None = None
    """Keep-alive settings."""
    authority: str | None = None
    """Value of the `:authority` header, if not the endpoint's."""


class Retry(Block):
    """What is done when a send fails and may succeed later."""

    enabled: bool = True
    """Try again."""
    initial_interval: PositiveDuration = 5.0
    """Wait before the second try."""
    randomization_factor: float = Field(0.5, ge=0, le=1)
    """Share of the wait that is left to chance, so that senders do not come back together."""
    multiplier: float = Field(1.5, ge=1)
    """Each wait is this many times the last."""
    max_interval: PositiveDuration = 30.0
    """Longest wait."""
    max_elapsed_time: Duration = 300.0
    """Give up after this long; 0 never gives up."""


class QueueBatchPartition(Block):
    """What is never mixed in one batch."""

    metadata_keys: list[str] = Field(default_factory=list)
    """Client headers by whose values batches are kept apart."""


class QueueBatch(Block):
    """Merging in the queue, as the `batch` processor does before it."""

    flush_timeout: PositiveDuration = 0.2
    """Send after this long, however little there is."""
    min_size: int = Field(8192, ge=0)
    """Send at this size."""
    max_size: int = Field(0, ge=0)
    """Never send more at once; 0 for no limit."""
    sizer: Literal["items", "bytes"] | None = None
    """Unit of the two sizes; that of the queue, or items, if left out."""
    partition: QueueBatchPartition = QueueBatchPartition()
    """What is never mixed in one batch."""


class Queue(Block):
    """The queue before an exporter."""

    enabled: bool = True
    """Without a queue the sender waits in it for one place only."""
    num_consumers: int = Field(10, ge=1)
    """Sends under way at once."""
    queue_size: int = Field(1000, ge=1)
    """Room, in units of `sizer`, counting what is being sent."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """What `queue_size` counts."""
    max_bytes: ByteSize = 16 * 2**20
    """Room in bytes, whatever `sizer` counts: this bounds memory. Counts what is being sent."""
    batch: QueueBatch | None = None
    """Merge in the queue; the `batch` processor before it does the same."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> Queue:
        if self.batch is not None and self.batch.max_size and self.batch.max_size < self.batch.min_size:
            message = f"batch.max_size ({self.batch.max_size}) is below batch.min_size ({self.batch.min_size})"
            raise ValueError(message)
        return self
