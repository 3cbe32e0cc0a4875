import pytest
from structlog.testing import capture_logs

from otelwp_agent.errors import Overloaded, PermanentError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.otlp_response import partial_success
from otelwp_agent.model.receipt import Receipt
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing import envelope
from otelwp_agent.telemetry import logging
from otelwp_agent.testing import FakeClock
from otelwp_agent.transport import otlp_posting
from otelwp_agent.transport.compression import decompress
from otelwp_agent.transport.http_connection import ClientResponse
from otelwp_agent.transport.otlp_posting import AnswerReader, BodyEncoder

PROTOBUF = "application/x-protobuf"


def a_batch(*encodings, body=b"x" * 1000):
    return Batch(Signal.TRACES, body, 5, Origin(), [(Receipt(5), 5)], encodings)


def test_the_names_of_sealed_bodies_are_those_of_envelopes():
    assert (otlp_posting.SEALED, otlp_posting.SEALED_ENCODING) == (envelope.MEDIA_TYPE, envelope.ENCODING)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_an_encoded_batch_is_sent_as_it_is_with_its_encoding(coding):
    batch = a_batch(coding)
    body, headers = BodyEncoder("gzip").encode(batch)
    assert body is batch.body
    assert headers == [("Content-Type", PROTOBUF), ("Content-Encoding", coding)]


@pytest.mark.parametrize("encodings", [("sealed",), ("zstd", "sealed")])
def test_an_envelope_has_its_own_media_type_and_no_content_encoding(encodings):
    batch = a_batch(*encodings)
    assert BodyEncoder("gzip").encode(batch) == (batch.body, [("Content-Type", "application/vnd.otelwp.sealed")])


def test_a_plain_batch_is_compressed():
    body, headers = BodyEncoder("zlib").encode(a_batch())
    assert headers == [("Content-Type", PROTOBUF), ("Content-Encoding", "deflate")]
    assert decompress("deflate", body, 2000) == b"x" * 1000
    assert BodyEncoder("none").encode(a_batch()) == (b"x" * 1000, [("Content-Type", PROTOBUF)])


@pytest.mark.parametrize(
    ("encodings", "convert", "why"),
    [(("brotli",), None, "no name"), (("zstd",), lambda batch: batch.body, "encoding: proto")],
)
def test_what_http_cannot_carry_is_refused_for_good(encodings, convert, why):
    with pytest.raises(PermanentError, match=why) as caught:
        BodyEncoder("gzip", convert=convert).encode(a_batch(*encodings))
    assert caught.value.reason == "encoded"


def test_answers_are_read_and_partial_successes_logged():
    reader = AnswerReader(logging.get(), FakeClock())
    with capture_logs() as logs:
        accepted = ClientResponse(200, {"content-type": PROTOBUF}, partial_success(3, "three of them"))
        assert reader.read(a_batch(), accepted) == 3
        everything = ClientResponse(200, {"content-type": PROTOBUF}, partial_success(99, "all"))
        assert reader.read(a_batch(), everything) == 5
        assert reader.read(a_batch(), ClientResponse(200, {}, b"anything")) == 0
        with pytest.raises(Overloaded):
            reader.read(a_batch(), ClientResponse(429, {"retry-after": "7"}, b""))
    assert [line["event"] for line in logs] == ["partial success"]
