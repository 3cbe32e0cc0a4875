import pytest
import zstandard

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


@pytest.mark.parametrize(
    "content",
    [
        zstandard.ZstdCompressor().compress(b"x" * 50) * 2,  # two frames
        zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100),
        zstandard.ZstdCompressor().compress(b"x" * 100) + b"\x50\x2a\x4d\x18\x00\x00\x00\x00",  # a skippable frame
    ],
)
def test_unusual_frames_are_read_like_usual_ones(content):
    assert decode(header(100, "zstd"), content, 1000) == b"x" * 100


@pytest.mark.parametrize(
    "content",
    [
        zstandard.ZstdCompressor().compress(b"x" * 100) + b"more",
        zstandard.ZstdCompressor().compress(b"x" * 100)[:-1],
        zstandard.ZstdCompressor().compress(b"x" * 99),
        b"",
    ],
)
def test_frames_that_are_not_whole_are_refused(content):
    assert reason(header(100, "zstd"), content, 1000) == "malformed"
