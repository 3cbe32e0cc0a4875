import pytest

from otelwp_agent.sealing.content import decode
from otelwp_agent.sealing.envelope import SealedHeader
from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.transport.compression import compress

LIMIT = 20 * 2**20
PLAIN = b"resource spans" * 100


def header(size, *encodings):
    return SealedHeader("acme", 0, encodings=encodings, plain_size=size)


def reason(header, content, limit=LIMIT):
    with pytest.raises(SealedError) as caught:
        decode(header, content, limit)
    return caught.value.reason


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_content_is_decompressed(encoding):
    assert decode(header(len(PLAIN), encoding), compress(encoding, PLAIN), LIMIT) == PLAIN
    assert decode(header(len(PLAIN)), PLAIN, LIMIT) == PLAIN


def test_a_bomb_stops_at_the_size_in_the_header():
    bomb = compress("zstd", bytes(64 * 2**20))
    assert reason(header(1000, "zstd"), bomb) == "too_large"
    assert reason(header(64 * 2**20, "zstd"), bomb) == "too_large"
    assert reason(header(64 * 2**20, "zstd"), bomb, 2**30) == "too_large"
    nested = compress("gzip", bomb)
    assert reason(header(1000, "zstd", "gzip"), nested) == "too_large"


def test_a_size_that_is_not_that_of_the_content_is_refused():
    assert reason(header(len(PLAIN) + 1, "zstd"), compress("zstd", PLAIN)) == "malformed"
    assert reason(header(len(PLAIN) - 1), PLAIN) == "malformed"


def test_content_that_does_not_have_its_encoding_is_refused():
    assert reason(header(len(PLAIN), "zstd"), PLAIN) == "malformed"
    assert reason(header(len(PLAIN), "zstd"), compress("zstd", PLAIN)[:-5]) == "malformed"
    assert reason(header(len(PLAIN), "brotli"), PLAIN) == "malformed"
