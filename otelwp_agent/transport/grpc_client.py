"""A gRPC client that sends and receives bytes; grpcio keeps one connection and reconnects when it breaks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from otelwp_agent.errors import RetryableError, StartError
from otelwp_agent.telemetry.tasks import spawn
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.grpc_runtime import STATUS_DETAILS, aio, grpc
from otelwp_agent.transport.tls import ClientTls, beyond_grpc, system_authorities

if TYPE_CHECKING:
    import structlog

    from otelwp_agent.config import blocks
    from otelwp_agent.model.batch import Origin
    from otelwp_agent.transport.authentication import ClientAuthenticator, Headers

    Metadata = tuple[tuple[str, str | bytes], ...]

RECONNECT = (500, 5_000)
"""Shortest and longest wait between attempts to connect, in milliseconds.

The longest one also limits an attempt. A server that is back is found within seconds; grpcio's own values are 1 s, 120
s and 20 s.
"""

_COMPRESSIONS = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}


class GrpcClient:
    """Calls unary methods of one server. `name` (`exporters/otlp_grpc`) is the component's name in error messages."""

    def __init__(
        self,
        settings: blocks.GrpcClient,
        *,
        name: str,
        log: structlog.typing.FilteringBoundLogger,
        authenticator: ClientAuthenticator | None = None,
    ) -> None:
        """Keep the settings; `start` opens the channel. `authenticator` adds a credential to each call."""
        self._authenticator = authenticator
        self.settings = settings
        self.name = name
        self.log = log
        self.timeout = settings.timeout
        self._secure = _is_secure(settings)
        self._tls: ClientTls | None = None
        self._metadata: Metadata = ()
        self._configured: dict[str, str] = {}
        self._channel: aio.Channel | None = None
        self._calls: dict[str, aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Read the certificates and open the channel; raise `StartError`. The first call makes the connection."""
        self._metadata = self._checked_metadata()
        self._configured = {name: value for name, value in self._metadata if isinstance(value, str)}
        tls = self.settings.tls
        if self._secure:
            problem = beyond_grpc(tls)
            if problem is not None:
                raise StartError(f"{self.name}: tls: {problem}")
            self._tls = ClientTls(tls, name=self.name)
            self._watch()
        self._channel = self._open()

    async def aclose(self) -> None:
        """Cancel the calls in progress and close the connection."""
        if self._timer is not None:
            self._timer.cancel()
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close(grace=None)

    async def call(self, method: str, message: bytes, origin: Origin | None = None) -> bytes:
        """Call `method` (`/package.Service/Method`) and return its answer; raise a `ConsumeError` for a failure.

        The authenticator gets the `origin` of the batch. If the server has refused a credential that can be replaced,
        the error is a `RetryableError`.
        """
        call = self._calls.get(method)
        if call is None:
            if self._channel is None:
                raise RuntimeError("the gRPC client is not started")
            call = self._calls[method] = self._channel.unary_unary(method, None, None)
        metadata, authenticator = self._metadata, self._authenticator
        credential: Headers = ()
        if authenticator is not None:
            credential = authenticator.headers(origin, self._configured)
            replaced = {name for name, _ in credential}
            kept = [pair for pair in metadata if pair[0] not in replaced]
            metadata = (*kept, *((name, value) for name, value in credential if value is not None))
        try:
            return await call(message, timeout=self.timeout, metadata=metadata)
        except aio.AioRpcError as error:
            refused = error.code() is grpc.StatusCode.UNAUTHENTICATED
            if refused and authenticator is not None and authenticator.rejected(credential):
                text = "the server has refused the credential (gRPC UNAUTHENTICATED)"
                raise RetryableError(text, reason="grpc_unauthenticated") from None
            raise statuses.from_grpc(error.code().value[0], error.details() or "", _details(error)) from None

    def reload_tls(self) -> None:
        """Read the certificate files again and reconnect; calls in progress finish on the old connection."""
        if self._tls is not None and self._channel is not None:
            self._tls.reload()
            before, self._channel = self._channel, self._open()
            self._calls.clear()
            spawn(before.close(grace=self.timeout), name=f"{self.name}: close the previous connection")

    def _open(self) -> aio.Channel:
        settings = self.settings
        endpoint = settings.endpoint
        target = f"unix:{endpoint.unix}" if endpoint.unix else f"dns:///{_host(endpoint.host)}:{endpoint.port}"
        compression = _COMPRESSIONS.get(settings.compression)
        options = _options(settings)
        if self._tls is None:
            return aio.insecure_channel(target, options, compression)
        pem = self._tls.pem
        roots = pem.authorities
        if not roots or settings.tls.include_system_ca_certs_pool:
            roots = roots + b"\n" + system_authorities() if roots else system_authorities()
        credentials = grpc.ssl_channel_credentials(roots or None, pem.key or None, pem.certificate or None)
        return aio.secure_channel(target, credentials, options, compression)

    def _checked_metadata(self) -> Metadata:
        """Return the configured headers in grpcio's format; raise `StartError` for an invalid one.

        Checked at the start, so that an invalid header does not fail every call.
        """
        metadata: list[tuple[str, str | bytes]] = []
        for name, secret in self.settings.headers.items():
            key, value = name.lower(), secret.get_secret_value()
            binary = key.endswith("-bin")
            if not _is_token(key) or key.startswith("grpc-"):
                message = f"{self.name}: headers: {name!r} is not a valid name for gRPC metadata: use a-z 0-9 - _ ."
                raise StartError(message)
            if not binary and not (value.isascii() and value.isprintable()):
                message = f"{self.name}: headers: the value of {name!r} contains characters that gRPC cannot send"
                raise StartError(message)
            metadata.append((key, value.encode() if binary else value))
        return tuple(metadata)

    def _watch(self) -> None:
        """Check the certificate files for changes every `reload_interval`."""
        if self.settings.tls.reload_interval:
            self._timer = asyncio.get_running_loop().call_later(self.settings.tls.reload_interval, self._look)

    def _look(self) -> None:
        try:
            if self._tls is not None and self._tls.changed():
                self.reload_tls()
                self.log.info("certificate reloaded", client=self.name)
        except StartError as error:
            self.log.error(  # noqa: TRY400 - the message is complete, a traceback would hide it
                "certificate not reloaded; the old one stays", client=self.name, error=str(error)
            )
        self._watch()


def _is_secure(settings: blocks.GrpcClient) -> bool:
    """Return whether the client uses TLS: the endpoint's scheme decides, without a scheme `tls.insecure`."""
    scheme = settings.endpoint.scheme
    return scheme == "https" or (scheme != "http" and not settings.tls.insecure)


def _details(error: aio.AioRpcError) -> bytes | None:
    """Return the serialized `google.rpc.Status` of an error, or None."""
    trailing = cast("Metadata", error.trailing_metadata() or ())  # the stubs of grpcio declare another class
    return next((value for key, value in trailing if key == STATUS_DETAILS and isinstance(value, bytes)), None)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_token(key: str) -> bool:
    """Return whether `key` is a valid name for metadata (gRPC over HTTP/2, "Custom-Metadata")."""
    return bool(key) and key.isascii() and key.replace("-", "").replace("_", "").replace(".", "").isalnum()


def _options(settings: blocks.GrpcClient) -> list[tuple[str, int | str]]:
    """Return grpcio's channel arguments (grpc/impl/channel_arg_names.h); times are in milliseconds."""
    first, longest = RECONNECT
    options: list[tuple[str, int | str]] = [
        ("grpc.initial_reconnect_backoff_ms", first),
        ("grpc.min_reconnect_backoff_ms", longest),
        ("grpc.max_reconnect_backoff_ms", longest),
        ("grpc.use_local_subchannel_pool", 1),  # a connection, and its back-off, for this client alone
    ]
    if settings.tls.server_name_override:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name_override))
    if settings.authority:
        options.append(("grpc.default_authority", settings.authority))
    if settings.user_agent:
        options.append(("grpc.primary_user_agent", settings.user_agent))
    keepalive = settings.keepalive
    if keepalive is not None:
        options.append(("grpc.keepalive_permit_without_calls", int(keepalive.permit_without_stream)))
        if keepalive.time:
            options.append(("grpc.keepalive_time_ms", int(keepalive.time * 1000)))
        if keepalive.timeout:
            options.append(("grpc.keepalive_timeout_ms", int(keepalive.timeout * 1000)))
    return options
