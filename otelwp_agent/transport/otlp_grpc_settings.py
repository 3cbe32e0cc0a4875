"""Settings of clients that send OTLP over gRPC: those of gRPC clients, as far as grpcio supports them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from otelwp_agent.config import blocks
from otelwp_agent.config.types import ByteSize, Ignored, Secret
from otelwp_agent.transport.tls import beyond_grpc

MAX_REQUEST_SIZE = 4 * 2**20 - 2**16
"""Default message limit of gRPC servers, 4 MiB, minus a margin for the bytes that splitting adds."""

_METADATA_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class GrpcClientTls(blocks.TlsClient):
    """TLS settings that grpcio supports: it always supports TLS 1.2 and 1.3, and always verifies the server."""

    max_version: Annotated[
        blocks.TlsVersion | None,
        AfterValidator(lambda _: None),
        Ignored("gRPC uses TLS 1.3 with servers that support it", values=("1.2",)),
    ] = None
    """Accepted for compatibility with the Collector, without effect: gRPC uses TLS 1.3 with servers that support it."""
    insecure_skip_verify: Annotated[
        bool,
        AfterValidator(lambda _: False),
        Ignored(
            "gRPC always verifies the server: give its certificate authority as `ca_file` (and `server_name_override` "
            "if the name differs), or use `otlp_http`",
            values=(True,),
        ),
    ] = False
    """Accepted for compatibility with the Collector, without effect: gRPC always verifies the server. Give its
    certificate authority as `ca_file`."""


def _sendable(headers: dict[str, Secret]) -> dict[str, Secret]:
    return {name: value for name, value in headers.items() if _METADATA_NAME.fullmatch(name)}


def _has_unsendable(headers: Any) -> bool:  # noqa: ANN401 - as written
    return isinstance(headers, dict) and not all(_METADATA_NAME.fullmatch(name) for name in headers)


class OtlpGrpcSettings(blocks.GrpcClient):
    """Settings of a client that sends OTLP over gRPC."""

    tls: GrpcClientTls = GrpcClientTls()
    """TLS settings; TLS is used unless `insecure` is set."""
    headers: Annotated[
        blocks.SecretHeaders,
        AfterValidator(_sendable),
        Ignored(
            "names of gRPC metadata have only a-z, 0-9, `-`, `_` and `.`: others are not sent", when=_has_unsendable
        ),
    ] = Field(default_factory=dict)
    """Metadata added to every call. Values are secrets. Entries with a name that gRPC cannot send are left out."""
    max_request_size: ByteSize = Field(MAX_REQUEST_SIZE, ge=1024)
    """Largest message before compression; larger batches are split. Raise it if the backend accepts more."""

    @model_validator(mode="after")
    def _grpc_can(self) -> OtlpGrpcSettings:
        problem = beyond_grpc(self.tls)
        if problem is not None:
            message = f"tls: {problem}"
            raise ValueError(message)
        return self
