import pytest
from pydantic import ValidationError

from otelwp_agent.model.signal import Signal
from otelwp_agent.transport.otlp_settings import OtlpHttp, OtlpProtocols


def test_paths_have_their_first_slash_added():
    paths = OtlpHttp(traces_url_path="in/traces").paths
    assert paths == {"/in/traces": Signal.TRACES, "/v1/metrics": Signal.METRICS, "/v1/logs": Signal.LOGS}


@pytest.mark.parametrize("path", ["http://x/v1", "/v1 traces", "/v1?x", "/v1/metrics", ""])
def test_invalid_paths(path):
    with pytest.raises(ValidationError, match="path"):
        OtlpHttp(traces_url_path=path)


def test_a_protocol_without_settings_is_enabled_and_one_is_needed():
    protocols = OtlpProtocols.model_validate({"http": None})
    assert protocols.http is not None
    assert protocols.grpc is None
    with pytest.raises(ValidationError, match="at least one protocol"):
        OtlpProtocols.model_validate({})
