import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from otelwp_agent.config.types import (
    ByteSize,
    Duration,
    Endpoint,
    Ignored,
    PositiveDuration,
    Refused,
    Secret,
    format_duration,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        (0, 0),
        ("0s", 0),
        ("200ms", 0.2),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("10us", 1e-5),
        ("2d", 172800),
        ("-5s", -5),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "5x", "1h-3m", 5, 1.5, True, None, [], "five"])
def test_what_is_no_duration_says_what_would_be_right(text):
    with pytest.raises(ValueError, match=r"needs a unit|a number and a unit"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**9).map(lambda micros: micros / 1e6))
def test_durations_are_written_as_they_are_read(seconds):
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), (5, 5), ("512", 512), ("20MiB", 20 * 2**20), ("4m", 4_000_000), ("1.5KiB", 1536), ("1 gb", 10**9)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", -1, True, 1.5, None, "5 bytes"])
def test_what_is_no_size_says_what_would_be_right(text):
    with pytest.raises(ValueError, match="is not a size: write"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:4317", ("", "127.0.0.1", 4317, "", "")),
        (":4317", ("", "", 4317, "", "")),
        ("[::1]:4317", ("", "::1", 4317, "", "")),
        ("https://a.example:4318/base/", ("https", "a.example", 4318, "/base", "")),
        ("http://a?b=c", ("http", "a", None, "?b=c", "")),
        ("dns://a:1", ("", "a", 1, "", "")),
        ("unix:///run/a.sock", ("", "", None, "", "/run/a.sock")),
        ("unix:/run/a.sock", ("", "", None, "", "/run/a.sock")),
    ],
)
def test_endpoints(text, parts):
    endpoint = Endpoint(text)
    assert (endpoint.scheme, endpoint.host, endpoint.port, endpoint.path, endpoint.unix) == parts
    assert endpoint == text


@pytest.mark.parametrize("text", ["", "https://", "ftp://a", "unix://", "unix:a", "a:port", "a:99999", "1:2:3"])
def test_what_is_no_endpoint_says_what_would_be_right(text):
    with pytest.raises(ValueError, match=r"like `|write `|a port is a number"):
        Endpoint(text)


class Model(BaseModel):
    duration: Duration = 1.0
    positive: PositiveDuration = 1.0
    size: ByteSize = 1
    endpoint: Endpoint = Endpoint("a:1")
    secret: Secret = Secret("")


def test_they_are_printed_as_they_are_written_and_secrets_never():
    model = Model.model_validate({"duration": "90s", "endpoint": "b:2", "secret": "geheim"})
    data = json.loads(model.model_dump_json())
    assert data == {"duration": "1m30s", "positive": "1s", "size": 1, "endpoint": "b:2", "secret": "**********"}
    assert "geheim" not in repr(model)


@pytest.mark.parametrize(
    "data", [{"duration": "-5s"}, {"positive": "0s"}, {"size": -1}, {"endpoint": 5}, {"secret": 5}]
)
def test_bounds(data):
    with pytest.raises(ValidationError):
        Model.model_validate(data)


def test_ignored():
    assert Ignored("why").concerns(0)
    assert not Ignored("why").concerns(None)
    assert not Ignored("why", harmless=(None, ["stderr"])).concerns(["stderr"])
    assert Ignored("why", values=("lz4",)).concerns(["gzip", "lz4"])
    assert not Ignored("why", values=("lz4",)).concerns("gzip")
    assert Ignored("why", when=lambda value: value > 3).concerns(4)


@pytest.mark.parametrize("value", [None, False, [], {}, {"enabled": False}])
def test_refused_takes_what_says_nothing(value):
    assert Refused("why")._refuse(value) is None


@pytest.mark.parametrize("value", [True, "x", [1], {"authenticator": "x"}])
def test_refused_says_why(value):
    with pytest.raises(ValueError, match="why"):
        Refused("why")._refuse(value)
