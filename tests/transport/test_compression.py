import gzip
import os
import time
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.transport.compression import ENCODINGS, UnknownEncodingError, compress, decompress

BODY = os.urandom(1000) * 300


@given(
    encoding=st.sampled_from(sorted(ENCODINGS)),
    body=st.binary(max_size=5000),
    level=st.sampled_from([None, 1, 3, 6, 9]),
)
def test_what_is_compressed_comes_back(encoding, body, level):
    assert decompress(encoding, compress(encoding, body, level), len(body)) == body


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_body_one_byte_over_the_limit_is_refused(encoding):
    data = compress(encoding, BODY)
    assert decompress(encoding, data, len(BODY)) == BODY
    with pytest.raises(TooLargeError, match=f"more than {len(BODY) - 1} bytes"):
        decompress(encoding, data, len(BODY) - 1)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_cut_and_foreign_bodies_are_malformed(encoding):
    data = compress(encoding, BODY)
    for bad in (data[:-20], data[:3], b"", b"{}" * 50):
        with pytest.raises(MalformedError):
            decompress(encoding, bad, len(BODY))


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", gzip.compress(b"\0" * 200_000_000, 9)),
        ("zstd", zstandard.ZstdCompressor(level=19).compress(b"\0" * 200_000_000)),
    ],
)
def test_a_bomb_is_stopped_at_the_limit(encoding, bomb):
    started = time.process_time()
    with pytest.raises(TooLargeError):
        decompress(encoding, bomb, 1 << 20)
    assert time.process_time() - started < 0.1, "it was inflated to the end"


def test_gzip_members_and_zstd_frames_one_after_another_are_one_body():
    assert decompress("gzip", gzip.compress(b"a") + gzip.compress(b"b"), 10) == b"ab"
    assert decompress("zstd", compress("zstd", b"a") + compress("zstd", b"b"), 10) == b"ab"


def test_zstd_streams_that_do_not_tell_their_size():
    compressor = zstandard.ZstdCompressor().compressobj()
    data = compressor.compress(BODY) + compressor.flush()
    assert decompress("zstd", data, len(BODY)) == BODY
    with pytest.raises(MalformedError, match="cut short"):
        decompress("zstd", data[:-20], len(BODY))


def test_deflate_with_and_without_its_zlib_wrapper():
    raw = zlib.compressobj(wbits=-15)
    assert decompress("deflate", raw.compress(b"hello") + raw.flush(), 10) == b"hello"
    assert decompress("deflate", zlib.compress(b"hello"), 10) == b"hello"


def test_encodings_are_undone_last_first():
    data = compress("zstd", compress("gzip", b"twice"))
    assert decompress("gzip, identity, ZSTD", data, 100) == b"twice"


def test_unknown_and_unwanted_encodings_name_what_is_accepted():
    with pytest.raises(UnknownEncodingError, match="'br': accepted here are deflate, gzip, zlib, zstd"):
        decompress("br", b"", 10)
    with pytest.raises(UnknownEncodingError, match="'gzip': accepted here are zstd"):
        decompress("gzip", b"", 10, frozenset({"", "zstd"}))
    with pytest.raises(UnknownEncodingError):
        compress("br", b"")
