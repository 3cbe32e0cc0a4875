from typing import Annotated

import pytest
from pydantic import ValidationError

from otelwp_agent.config.blocks import (
    Block,
    GrpcClient,
    GrpcServer,
    HttpClient,
    HttpReceiver,
    HttpServer,
    LocalHttpServer,
    Queue,
    Retry,
    TlsClient,
    TlsServer,
)
from otelwp_agent.config.types import NullIsPresent


class Inner(Block):
    size: int = 1


class Outer(Block):
    number: int = 5
    inner: Inner = Inner()
    maybe: Inner | None = None
    present: Annotated[Inner | None, NullIsPresent] = None


def refusal(model, data):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return str(caught.value)


def test_null_is_the_default_as_in_the_collector():
    outer = Outer.model_validate({"number": None, "inner": None, "maybe": None, "present": None})
    assert outer == Outer(present=Inner())
    assert Outer.model_validate(None) == Outer()
    assert Outer().present is None


def test_null_of_what_is_required_is_missing():
    assert "Field required" in refusal(GrpcClient, {"endpoint": None})


def test_blocks_refuse_unknown_keys_and_never_change():
    assert "extra_forbidden" in refusal(Outer, {"numbre": 1})
    with pytest.raises(ValidationError):
        Outer().number = 6


def test_headers_may_be_a_list_of_names_and_values():
    client = HttpClient.model_validate({"headers": [{"name": "a", "value": "x"}, {"name": "b", "value": "y"}]})
    assert {name: value.get_secret_value() for name, value in client.headers.items()} == {"a": "x", "b": "y"}
    assert HttpServer.model_validate({"response_headers": {"a": "x"}}).response_headers == {"a": "x"}


@pytest.mark.parametrize("endpoint", ["/tmp/a.sock", "unix:///tmp/a.sock"])
@pytest.mark.parametrize("server", [HttpServer, GrpcServer])
def test_transport_unix_makes_the_endpoint_a_path(server, endpoint):
    assert server.model_validate({"transport": "unix", "endpoint": endpoint}).endpoint.unix == "/tmp/a.sock"


@pytest.mark.parametrize("server", [HttpServer, GrpcServer])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"endpoint": "localhost"}, "has no port"),
        ({"endpoint": "http://localhost:1"}, "a server listens on an address"),
        ({"endpoint": "localhost:1/path"}, "a server listens on an address"),
        ({"transport": "unix", "endpoint": "relative.sock"}, "an absolute path"),
        ({"transport": "npipe"}, "Input should be"),
        ({"auth": {}}, "Field required"),
        ({"auth": {"authenticator": "/x"}}, "'/x' is not the id of an extension: write `type` or `type/name`"),
        ({"auth": {"authenticator": "x/"}}, "'x/' is not the id of an extension"),
        ({"auth": {"authenticator": 1}}, "Input should be a valid string"),
        ({"middlewares": [{"name": "x"}]}, "Field required"),
        ({"middlewares": {"id": "x"}}, "Input should be a valid list"),
    ],
)
def test_servers_refuse(server, data, words):
    assert words in refusal(server, data)


@pytest.mark.parametrize("server", [HttpServer, GrpcServer])
def test_servers_name_the_extensions_that_authenticate_and_limit(server):
    settings = server.model_validate(
        {"auth": {"authenticator": " oidc/shop "}, "middlewares": [{"id": "rate_limiter"}]}
    )
    assert (settings.auth.authenticator, [each.id for each in settings.middlewares]) == ("oidc/shop", ["rate_limiter"])
    assert server.model_validate({"auth": None, "middlewares": None}).middlewares == []


def test_credentials_in_a_query_are_refused():
    words = refusal(HttpServer, {"auth": {"authenticator": "x", "request_params": ["token"]}})
    assert "credentials in the query of a URL end up in logs" in words


@pytest.mark.parametrize("key", ["auth", "middlewares"])
def test_endpoints_for_this_host_authenticate_nobody(key):
    assert "does not authenticate its clients" in refusal(LocalHttpServer, {key: [{"id": "x"}]})


def test_http_servers_listen_on_several_addresses():
    server = HttpServer.model_validate({"additional_endpoints": ["[::1]:4318", "unix:///run/a.sock"]})
    assert [(each.host, each.port, each.unix) for each in server.additional_endpoints] == [
        ("::1", 4318, ""),
        ("", None, "/run/a.sock"),
    ]
    assert "is given twice" in refusal(HttpServer, {"additional_endpoints": ["127.0.0.1:4318"]})
    assert "has no port" in refusal(HttpServer, {"additional_endpoints": ["localhost"]})
    assert "Input should be" in refusal(HttpReceiver, {"on_overload": "ignore"})


def test_zero_is_the_default_limit_as_in_the_collector():
    assert HttpServer.model_validate({"max_request_body_size": 0}).max_request_body_size == 20 * 2**20
    assert GrpcServer.model_validate({"max_recv_msg_size_mib": 0}).max_recv_msg_size_mib == 20
    assert "greater_than_equal" in refusal(GrpcServer, {"max_recv_msg_size_mib": False})


def test_encodings_that_nobody_reads_are_left_out():
    server = HttpServer.model_validate({"compression_algorithms": ["", "snappy", "gzip", "lz4"]})
    assert server.compression_algorithms == ("", "gzip")
    assert "literal_error" in refusal(HttpServer, {"compression_algorithms": ["brotli"]})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"cert_file": "a"}, "belong together"),
        ({"key_pem": "a"}, "belong together"),
        ({"cert_file": "a", "cert_pem": "b", "key_file": "c"}, "give only one of them"),
        ({"ca_file": "a", "ca_pem": "b"}, "give only one of them"),
        ({"min_version": "1.3", "max_version": "1.2"}, "is below min_version"),
        ({"min_version": "1.4"}, "literal_error"),
        ({"tpm": {"enabled": True}}, "trusted platform module"),
    ],
)
def test_tls_refuses(data, words):
    assert words in refusal(TlsClient, data)


def test_tls():
    assert TlsClient.model_validate({"min_version": "1.0", "tpm": {"enabled": False}}).min_version == "1.2"
    assert "a server needs cert_file and key_file" in refusal(TlsServer, {})
    server = TlsServer.model_validate({"cert_pem": "a", "key_pem": "geheim"})
    assert "geheim" not in repr(server)


def test_grpc_clients_need_a_port():
    assert "has no port" in refusal(GrpcClient, {"endpoint": "https://example.com"})
    assert GrpcClient.model_validate({"endpoint": "unix:///run/a.sock"}).endpoint.unix == "/run/a.sock"


@pytest.mark.parametrize(
    ("compression", "level", "good"),
    [
        ("gzip", 9, True),
        ("gzip", 10, False),
        ("gzip", -1, True),
        ("zstd", 22, True),
        ("zstd", 0, False),
        ("none", 99, True),
    ],
)
def test_compression_levels(compression, level, good):
    data = {"compression": compression, "compression_params": {"level": level}}
    if good:
        assert HttpClient.model_validate(data).compression_params.level == level
    else:
        assert f"{compression} has levels" in refusal(HttpClient, data)


def test_queue_batch_is_there_when_named_and_gone_when_disabled():
    assert Queue.model_validate({}).batch is None
    assert Queue.model_validate({"batch": None}).batch is not None
    assert Queue.model_validate({"batch": {"enabled": False, "min_size": 5}}).batch is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"batch": {"min_size": 10, "max_size": 5}}, "is below batch.min_size"),
        ({"sizer": "items", "queue_size": 10, "batch": {"min_size": 11}}, "above queue_size"),
        ({"queue_size": 0}, "greater_than_equal"),
        ({"num_consumers": 0}, "greater_than_equal"),
        ({"num_consumers": 3, "min_concurrency": 4}, "min_concurrency (4) is above num_consumers (3)"),
        ({"max_tenant_share": 0}, "greater_than"),
        ({"max_tenant_share": 1.5}, "less_than_equal"),
        ({"batch": {"sizer": "requests"}}, "literal_error"),
        ({"batch": {"partition": {"metadata_keys": ["A", "a"]}}}, "is given twice"),
        ({"storage": "file_storage"}, "kept in memory"),
        ({"wait_for_result": True}, "acknowledge: delivered"),
    ],
)
def test_queues_refuse(data, words):
    assert words in refusal(Queue, data)


def test_queue_sizes_in_other_units_are_not_compared():
    assert (
        Queue.model_validate({"sizer": "requests", "queue_size": 10, "batch": {"min_size": 5000}}).batch.min_size
        == 5000
    )
    assert Queue.model_validate({"sizer": "bytes", "queue_size": 10, "batch": {"sizer": "items"}}).batch is not None


def test_retry_refuses_intervals_that_contradict_each_other():
    assert "shorter than max_interval" in refusal(Retry, {"max_interval": "20s", "max_elapsed_time": "10s"})
    assert Retry.model_validate({"max_elapsed_time": "1s"}).max_elapsed_time == 1  # the default intervals are cut short
    assert Retry.model_validate({"max_interval": "20s", "max_elapsed_time": 0}).max_elapsed_time == 0
    assert "open_time is above" in refusal(Retry, {"circuit_breaker": {"open_time": "31s"}})
    assert Retry.model_validate({"circuit_breaker": {"max_open_time": "1s"}}).circuit_breaker.max_open_time == 1
    assert not Retry.model_validate({"enabled": False, "max_interval": "20s", "max_elapsed_time": "10s"}).enabled
