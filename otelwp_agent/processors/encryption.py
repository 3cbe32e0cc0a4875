"""Encrypt the bodies of batches to the public key of a collector: this host cannot decrypt them.

Place it last, after `batch` and `compression`. Only an exporter that sends encrypted bodies as they are may follow:
`managed`, or `otlp_http` to a collector that opens them. The page [Sealed envelope](../../topics/sealed-envelope.md)
specifies the format: HPKE (RFC 9180), and a header with customer, agent, time and message id that cannot be changed.
It needs the extra `sealing`: `pip install 'otelwp-agent[sealing]'`.

The public keys are a signed key set, which the owner of the collector makes with `otelwp-agent keys`. It is fetched
again regularly and when the collector does not know a key, so that keys are replaced without a restart. An older key
set is refused. Without a valid key nothing is forwarded: senders are asked to retry, and the health is not good.

Example::

    receivers: {otlp: {protocols: {http: }}}
    processors:
      batch:
      compression:
      encryption:
        customer_id: cust_123456
        recipients:
          url: https://eu.collector.example/key-set.jws
          public_keys: [3PtvBNyqwBhvaUbgJ3eTcT1xTjC0VqZPJbNrhlLDo1A]
          state_file: /var/lib/otelwp/key-set.jws
    exporters:
      managed: {endpoint: https://eu.collector.example, api_key: "${env:WPOTEL_API_KEY:-none}"}
    service:
      pipelines:
        traces: {receivers: [otlp], processors: [batch, compression, encryption], exporters: [managed]}
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from otelwp_agent.component import (
    Carries,
    ComponentConfig,
    ComponentHealth,
    Context,
    Factory,
    Kind,
    Stability,
    Tier,
)
from otelwp_agent.component.encoding import EncodingProcessor
from otelwp_agent.config.recipients import RecipientsConfig  # noqa: TC001 - pydantic reads it
from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.sealing.envelope import MAX_TEXT
from otelwp_agent.sealing.message_ids import MessageIds, read_or_create_key
from otelwp_agent.sealing.recipient_source import RecipientSource
from otelwp_agent.sealing.sealer import Sealer
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.telemetry.metrics import Instrument, InstrumentKind

if TYPE_CHECKING:
    from otelwp_agent.model.batch import Batch

SEALED = Instrument("otelwp_processor_encryption_batches", "Batches that were encrypted.", labels=("processor",))
BYTES = Instrument("otelwp_processor_encryption_bytes", "Bytes of the bodies before encryption.", labels=("processor",))
SECONDS = Instrument(
    "otelwp_processor_encryption_cpu_seconds", "CPU time that encryption has taken.", labels=("processor",)
)
KEY_SETS = Instrument(
    "otelwp_processor_encryption_key_sets",
    "Key sets that were read, by result: accepted, or why not.",
    labels=("processor", "result"),
)
VERSION = Instrument(
    "otelwp_processor_encryption_key_set_version",
    "Version of the key set in use; 0 if there is none.",
    InstrumentKind.GAUGE,
    ("processor",),
)


def _fits_a_header(value: str) -> str:
    if len(value) > MAX_TEXT or not value.isprintable():
        message = f"use at most {MAX_TEXT} printable characters"
        raise ValueError(message)
    return value


class Config(ComponentConfig):
    """Customer, agent, and the keys to encrypt to."""

    customer_id: Annotated[str, AfterValidator(_fits_a_header)] = ""
    """Customer in the header. The collector compares it with the tenant of the API key. If left out, it is the tenant
    of the batch, as an `auth` extension of this agent has found it."""
    agent_id: Annotated[str, AfterValidator(_fits_a_header)] = ""
    """Name of this agent in the header; the host's name if left out."""
    message_id_key_file: str | None = Field(None, min_length=1)
    """File (mode 0600) with a key for message ids, which is created if there is none. With it, the id of a message is
    made of its content, so that the collector recognizes what an agent with a journal sends again after a crash, and
    does not process it twice. Without it, ids are random."""
    recipients: RecipientsConfig
    """The public keys to encrypt to."""
    suite: Literal["newest", "X25519", "MLKEM768_X25519"] = "newest"
    """Cipher suite. `newest` uses the newest key of the key set, whatever its suite. `MLKEM768_X25519` adds protection
    against quantum computers and 1 KiB to each request."""


class EncryptionProcessor(EncodingProcessor):
    """Seals bodies; see `EncodingProcessor` for where and when."""

    def __init__(self, config: Config, context: Context) -> None:
        """Copy the settings and bind the instruments; `start` reads the keys."""
        super().__init__(context)
        self._name, self._registry = str(context.id), context.registry
        suites = tuple(SealingSuite) if config.suite == "newest" else (SealingSuite[config.suite],)
        self.source = RecipientSource(
            config.recipients, suites, name=f"processors/{self._name}", log=context.log, read=self._read
        )
        agent = config.agent_id or socket.gethostname()[:MAX_TEXT]
        self._sealer = Sealer(self.source, config.customer_id, agent)
        self._key_file = config.message_id_key_file
        self._sealed = self._registry.counter(SEALED, processor=self._name)
        self._bytes = self._registry.counter(BYTES, processor=self._name)
        self._seconds = self._registry.counter(SECONDS, processor=self._name)
        self._registry.gauge(VERSION, lambda: self.source.version, processor=self._name)

    async def start(self) -> None:
        """Read the keys that are on this host, and begin to fetch others; raise `StartError`."""
        try:
            import jwt  # noqa: F401, PLC0415 - the packages may be missing
            from cryptography.hazmat.primitives import hpke  # noqa: F401, PLC0415 - the same
        except ModuleNotFoundError as error:
            raise StartError(
                f"processors/{self._name}: {error.name} is not installed: install it with `pip install "
                "'otelwp-agent[sealing]'`"
            ) from error
        if self._key_file is not None:
            name = f"processors/{self._name}: message_id_key_file"
            self._sealer.ids = MessageIds(read_or_create_key(Path(self._key_file), name))
        await self.source.start()

    async def shutdown(self) -> None:
        """Forward all batches, then stop fetching keys."""
        try:
            await super().shutdown()
        finally:
            await self.source.stop()

    def refresh(self) -> None:
        """Read and fetch the keys again."""
        self.source.refresh()

    def health(self) -> ComponentHealth:
        """Report why nothing can be encrypted, or why the keys are not up to date."""
        reason = self.source.reason
        details = {"key_set_version": self.source.version}
        return ComponentHealth(Kind.PROCESSOR, self._name, not reason, reason, details)

    def unable(self) -> RetryableError | None:
        """Return the error if there is no key now, else `None`."""
        try:
            self.source.current()
        except RetryableError as error:
            return error.with_traceback(None)
        return None

    def encode(self, batch: Batch) -> Batch:
        """Return the batch with its body in an envelope."""
        return self._sealer.seal(batch)

    def encoded(self, before: Batch, after: Batch, seconds: float) -> None:  # noqa: ARG002 - the same size
        """Count the batch and the time."""
        self._sealed.add()
        self._bytes.add(len(before.body))
        self._seconds.add(seconds)

    def _read(self, result: str) -> None:
        self._registry.counter(KEY_SETS, processor=self._name, result=result).add()


FACTORY = Factory(
    Kind.PROCESSOR,
    "encryption",
    Config,
    EncryptionProcessor,
    stability=Stability.BETA,
    tier=Tier.ENTERPRISE,
    accepts=Carries.COMPRESSED,
    encodes=Carries.ENCODED,
    instruments=(SEALED, BYTES, SECONDS, KEY_SETS, VERSION),
)
