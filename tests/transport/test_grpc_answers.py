"""Header blocks of answers, read with the library `hpack`."""

from base64 import b64decode

import pytest
from google.rpc.status_pb2 import Status
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import Overloaded
from otelwp_agent.transport import grpc_answers
from otelwp_agent.transport.status import GrpcCode


def fields(block):
    decoder = Decoder()
    found = decoder.decode(block)
    assert not decoder.header_table.dynamic_entries, "answers leave no entry in the client's table"
    return dict(found)


def test_an_answer_with_a_message():
    assert fields(grpc_answers.START) == {":status": "200", "content-type": "application/grpc"}
    assert fields(grpc_answers.OK) == {"grpc-status": "0"}


def test_a_failure_is_one_block():
    found = fields(grpc_answers.failure(GrpcCode.NOT_FOUND, "50 % of é\n", b"\x00\xff"))
    assert found == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "5",
        "grpc-message": "50 %25 of %C3%A9%0A",
        "grpc-status-details-bin": "AP8",
    }
    assert "grpc-message" not in fields(grpc_answers.failure(GrpcCode.INTERNAL, ""))


def test_a_refusal_has_its_details():
    found = fields(grpc_answers.refusal(Overloaded("full", retry_after=2)))
    details = found["grpc-status-details-bin"]
    status = Status.FromString(b64decode(details + "=" * (-len(details) % 4)))
    assert (found["grpc-status"], found["grpc-message"], status.code, len(status.details)) == ("8", "full", 8, 1)


@pytest.mark.parametrize("status", [405, 415])
def test_an_answer_to_another_protocol(status):
    assert fields(grpc_answers.http_start(status)) == {
        ":status": str(status),
        "content-type": "text/plain; charset=utf-8",
    }


@given(st.binary(max_size=300) | st.integers(0, 20_000).map(bytes))
def test_texts_of_any_length(value):
    assert Decoder(10**6).decode(grpc_answers.field(b"x", value), raw=True) == [(b"x", value)]
