"""Settings of a gRPC client that grpcio supports, and those that are refused or ignored."""

import pytest
from pydantic import ValidationError

from otelwp_agent.transport.otlp_grpc_settings import OtlpGrpcSettings


def test_what_grpc_cannot_honour_is_a_configuration_error():
    with pytest.raises(ValidationError, match="gRPC cannot refuse"):
        OtlpGrpcSettings(endpoint="127.0.0.1:1", tls={"min_version": "1.3"})


def test_what_is_stricter_than_asked_is_no_error():
    tls = OtlpGrpcSettings(endpoint="127.0.0.1:1", tls={"insecure_skip_verify": True, "max_version": "1.2"}).tls
    assert tls.insecure_skip_verify is False
    assert tls.max_version is None
