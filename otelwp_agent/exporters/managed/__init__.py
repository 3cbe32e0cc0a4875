"""Send batches to a managed collector over HTTP: plain, compressed or sealed, with fallback regions and hints.

The exporter is the end of a pipeline of a customer's agent. It sends what OTLP over HTTP sends, with the customer in
`X-Customer-ID` and the API key in `X-API-Key`. Batches that the processors `compression` and `encryption` have encoded
are sent as they are.

* A retry of a batch carries the same message id, in the envelope of a sealed batch, else in `Idempotency-Key`. The
  collector acknowledges a batch that it has accepted before, and does not process it twice.
* If the collector refuses an envelope because its key or its time is out of date, the keys are refreshed and the batch
  is sealed again, with the same message id.
* `fallback_endpoints` are used, in their order, while those before them do not answer. After `return_after`, one batch
  tries the first one again.
* 429 with `Retry-After` pauses the batches of the tenant that sent too much, and no others.
* Answers may limit the sampling rate: `adaptive_sampling` in this agent follows, and `remote_sampling` serves the lower
  rate to the WordPress plugin and to SDKs.

Example::

    exporters:
      managed:
        endpoint: https://eu.collector.example
        fallback_endpoints: [https://us.collector.example]
        customer_id: cust_123456
        api_key: ${env:WPOTEL_API_KEY:-none}
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent import __version__
from otelwp_agent.component import Carries, Context, Exporter, ExporterConfig, Factory, Kind, Stability, Tier
from otelwp_agent.config import blocks
from otelwp_agent.config.http_headers import header_problem
from otelwp_agent.config.types import ByteSize, PositiveDuration, Secret  # noqa: TC001 - pydantic reads them
from otelwp_agent.errors import RetryableError
from otelwp_agent.exporters.managed import hints, resealing
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind
from otelwp_agent.transport.fallback import Fallback
from otelwp_agent.transport.http_client import HttpClient
from otelwp_agent.transport.otlp_posting import SEALED_ENCODING, AnswerReader, BodyEncoder, request_path

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch
    from otelwp_agent.transport.http_connection import ClientResponse

MAX_REQUEST_SIZE = 20 * 2**20
"""Default limit of the collector for a body, before compression."""
MESSAGE_ID_BYTES = 16
_REGION_FAILS = frozenset({502, 503, 504})
"""Statuses of a region that cannot accept anything now, from any sender."""

ENDPOINT = Instrument(
    "otelwp_managed_endpoint",
    "Position of the endpoint that answered last, from 0 for `endpoint`.",
    InstrumentKind.GAUGE,
    ("exporter",),
)


def _sendable(value: str) -> str:
    problem = header_problem("X-Customer-ID", value)
    if problem is not None or value != value.strip():
        raise ValueError("use visible characters without spaces at the ends: the value is sent in a header")
    return value


def _sendable_secret(value: Secret) -> Secret:
    _sendable(value.get_secret_value())
    return value


class Config(ExporterConfig, blocks.HttpClient):
    """Settings of the exporter to a managed collector."""

    endpoint: blocks.HttpUrl
    """Base URL of the collector (`https://eu.collector.example`), or `unix:///path`."""
    fallback_endpoints: list[blocks.HttpUrl] = Field(default_factory=list, max_length=16)
    """Base URLs of the collector in other regions, in the order in which they are used while those before them do not
    answer."""
    return_after: PositiveDuration = 30.0
    """Time after which an endpoint that did not answer is tried again, with one batch."""
    customer_id: Annotated[str, AfterValidator(_sendable)] = ""
    """Customer, sent in `X-Customer-ID`. The collector compares it with the API key. Not sent if empty."""
    api_key: Annotated[Secret | None, AfterValidator(lambda key: key and _sendable_secret(key))] = None
    """API key, sent in `X-API-Key`. Not sent if left out, for example if `auth` adds the credential."""
    compression: blocks.Compression = "zstd"
    """Compression of plain bodies: zstd, gzip, deflate, zlib or none. Encoded batches are sent as they are."""
    timeout: PositiveDuration = 10.0
    """Maximum time for one request to one endpoint, from connecting to the last byte of the response."""
    max_request_size: ByteSize = Field(MAX_REQUEST_SIZE, ge=1024)
    """Largest body before compression; larger batches are split."""
    configuration_version: str = Field("", max_length=64)
    """Version of this configuration. If it is set and the collector reports another one, a warning is logged."""

    @property
    def endpoints(self) -> list[blocks.HttpUrl]:
        """All endpoints, in the order of preference."""
        return [self.endpoint, *self.fallback_endpoints]

    @property
    def attempt_timeout(self) -> float:
        """Seconds for one attempt, which may try every endpoint."""
        return self.timeout * len(self.endpoints)

    @model_validator(mode="after")
    def _endpoints_are_bases(self) -> Config:
        if any("?" in each for each in self.endpoints):
            raise ValueError("an endpoint cannot have a query, because paths are appended to it")
        if len({*self.endpoints}) < len(self.endpoints):
            raise ValueError("an endpoint is given twice: give each one once, in the order of preference")
        return self


class ManagedExporter(Exporter):
    """Posts each batch to the first endpoint that answers."""

    throttled_by_tenant = True

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings; `start` opens connections."""
        super().__init__(context)
        self.max_request_bytes = config.max_request_size
        self._encoder = BodyEncoder(config.compression, config.compression_params.level)
        self._headers = [("User-Agent", f"otelwp-agent/{__version__}")]
        if config.customer_id:
            self._headers.append(("X-Customer-ID", config.customer_id))
        if config.api_key is not None:
            self._headers.append(("X-API-Key", config.api_key.get_secret_value()))
        authenticator = context.client_authenticator(config.auth)
        self.headers = authenticator.reads if authenticator is not None else ()
        name = f"{context.kind.value}/{context.id}"
        self._clients = [
            HttpClient(config, endpoint, name=name, log=context.log, authenticator=authenticator)
            for endpoint in config.endpoints
        ]
        self._paths = [request_path(endpoint, "").rstrip("/") for endpoint in config.endpoints]
        self._fallback = Fallback(len(self._clients), config.return_after)
        self._answers = AnswerReader(context.log, context.clock)
        self._hints = hints.HintReporter(context, config.configuration_version)
        self._resealer = resealing.Resealer(context)
        context.registry.gauge(ENDPOINT, lambda: float(self._fallback.current), exporter=str(context.id))

    async def start(self) -> None:
        """Read the certificates; the first export connects."""
        for client in self._clients:
            await client.start()

    async def shutdown(self) -> None:
        """Close the connections."""
        for client in self._clients:
            await client.aclose()

    def refresh(self) -> None:
        """Reload the certificates."""
        for client in self._clients:
            client.reload_tls()

    async def export(self, batch: Batch) -> int:
        """Post the batch; return how many of its items the collector rejected."""
        body, headers = self._encoder.encode(batch)
        headers = [*headers, *self._headers]
        if batch.encodings[-1:] != (SEALED_ENCODING,):
            headers.append(("Idempotency-Key", blake2b(batch.body, digest_size=MESSAGE_ID_BYTES).hexdigest()))
            return self._answers.read(batch, await self._post(batch, body, headers))
        body, reason, detail = await self._resealer.current(batch), "", ""
        for _ in range(resealing.TRIES):
            response = await self._post(batch, body, headers)
            reason, detail = resealing.refusal_of(response)
            if not reason:
                return self._answers.read(batch, response)
            body = await self._resealer.after(batch, reason, detail)
        raise resealing.error_of(batch, reason, detail)

    async def _post(self, batch: Batch, body: bytes, headers: list[tuple[str, str]]) -> ClientResponse:
        """Return the answer of the first endpoint that answers; raise `RetryableError` if none does."""
        fallback, clock = self._fallback, self.context.clock
        response: ClientResponse | None = None
        failure: RetryableError | None = None
        for number in fallback.candidates(clock()):
            client, path = self._clients[number], f"{self._paths[number]}/v1/{batch.signal.value}"
            try:
                response = await client.request("POST", path, body, headers, batch.origin)
            except RetryableError as error:
                if error.reason == "http_401":
                    raise
                failure = error
                fallback.failed(number, clock())
                continue
            self._hints.take(response.headers)
            if response.status in _REGION_FAILS:
                fallback.failed(number, clock())
                continue
            if fallback.answered(number):
                self.context.log.warning("another endpoint answers", endpoint=client.address, position=number)
            return response
        if response is not None:
            return response
        assert failure is not None  # noqa: S101 - there is at least one endpoint
        raise failure


FACTORY = Factory(
    Kind.EXPORTER,
    "managed",
    Config,
    ManagedExporter,
    stability=Stability.BETA,
    tier=Tier.ENTERPRISE,
    accepts=Carries.ENCODED,
    instruments=(ENDPOINT, *resealing.INSTRUMENTS, *hints.INSTRUMENTS),
)
