import contextlib
import gzip
import os
import time
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import ConsumeError, MalformedError, TooLargeError
from otelwp_agent.transport import compression
from otelwp_agent.transport.compression import ENCODINGS, UnknownEncodingError, compress, decompress

BODY = os.urandom(1000) * 300
HUFFMAN_BLOCKS = bytes.fromhex(
    "04c0810800000000a0fda93f0170200200000000687fea4f001c880000000000da9ffa130007220000000080f6a7fe"
)
"""Four empty deflate blocks with Huffman tables."""


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
    ("encoding", "make"),
    [
        ("gzip", lambda: gzip.compress(bytes(200_000_000), 1)),
        ("zstd", lambda: zstandard.compress(bytes(200_000_000))),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(bytes(200_000_000), 1))),
    ],
    ids=["gzip", "zstd", "twice"],
)
def test_a_bomb_is_stopped_at_the_limit(encoding, make):
    bomb = make()
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
    with pytest.raises(UnknownEncodingError, match="'br': accepted: deflate, gzip, zlib, zstd"):
        decompress("br", b"", 10)
    with pytest.raises(UnknownEncodingError, match="'gzip': accepted: zstd"):
        decompress("gzip", b"", 10, frozenset({"", "zstd"}))
    with pytest.raises(UnknownEncodingError):
        compress("br", b"")


def test_more_than_two_encodings_are_refused_before_anything_is_inflated():
    data = b"x"
    for _ in range(3):
        data = compress("gzip", data)
    with pytest.raises(UnknownEncodingError, match="3 content encodings: a body can have 2 at most"):
        decompress("gzip, gzip, gzip", data, 10)
    assert decompress(", identity," * 100 + "gzip, gzip", compress("gzip", compress("gzip", b"x")), 100) == b"x"


def test_all_encodings_of_a_body_share_one_budget():
    inner = compress("gzip", os.urandom(1000))
    data = compress("zstd", inner)
    total = 1000 + len(inner)
    assert len(decompress("gzip, zstd", data, total)) == 1000
    with pytest.raises(TooLargeError, match=f"more than {total - 1} bytes"):
        decompress("gzip, zstd", data, total - 1)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("garbage", [b"\0", b"junk" * 10, b"\x1f"], ids=["zero", "junk", "magic"])
def test_bytes_behind_the_compressed_data_are_malformed(encoding, garbage):
    with pytest.raises(MalformedError, match=r"bytes follow the end|cut short"):
        decompress(encoding, compress(encoding, BODY) + garbage, len(BODY))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("size", [0, 1, 255, 4096, 70_000, 300_000, 9 << 20])
def test_slices_of_input_and_output_are_put_together(encoding, size, monkeypatch):
    monkeypatch.setattr(compression, "_WINDOW", 1000)
    body = os.urandom(size // 3) * 3 + b"." * (size - size // 3 * 3)
    assert decompress(encoding, compress(encoding, body), size) == body
    monkeypatch.setattr(compression, "_SLICE", 4096)
    if size < 1 << 20:
        assert decompress(encoding, compress(encoding, body), size) == body


@pytest.mark.parametrize(
    ("encoding", "make"),
    [
        ("gzip", lambda: gzip.compress(b"") * 500_000),
        ("gzip", lambda: gzip.compress(gzip.compress(b"") * 400_000)),
        ("gzip", lambda: gzip.compress(b"", mtime=1) + b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 5_000_000),
        ("zstd", lambda: compress("zstd", b"") * 1_000_000),
        ("zstd", lambda: b"\x50\x2a\x4d\x18" + bytes(4) + (b"\x50\x2a\x4d\x18" + bytes(4)) * 1_000_000),
        ("zstd", lambda: b"\x28\xb5\x2f\xfd\0\x48" + bytes(9_000_000) + b"\1\0\0"),
        ("deflate", lambda: b"\0\0\0\xff\xff" * 1_000_000 + b"\1\0\0\xff\xff"),
    ],
    ids=["members", "nested", "long name", "frames", "skippable", "empty blocks", "empty stored blocks"],
)
def test_parts_that_hold_nothing_cost_no_time(encoding, make):
    data = make()
    started = time.process_time()
    with contextlib.suppress(ConsumeError):
        decompress(encoding, data, 20 << 20)
        decompress(f"{encoding}, {encoding}", data, 20 << 20)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(("size", "members"), [(0, 60), (1, 60), (100, 60), (3000, 1000), (700_000, 3)])
def test_gzip_members_are_read_whatever_their_size_is(size, members):
    body = os.urandom(size)
    assert decompress("gzip", gzip.compress(body) * members, 4 << 20) == body * members


def test_an_inflation_that_no_telemetry_has_is_refused():
    body = b"\0" * (20 << 20)
    for encoding in ("gzip", "zstd"):
        data = compress(encoding, body)
        with pytest.raises(TooLargeError, match=r"more than 4\d+ bytes, which is too much for its size"):
            decompress(encoding, data, 32 << 20)
        assert decompress(encoding, data, 32 << 20, ratio=0) == body
        assert decompress(encoding, compress(encoding, body[: 4 << 20]), 32 << 20) == body[: 4 << 20]


@pytest.mark.parametrize("inner", ["gzip", "deflate"])
@pytest.mark.parametrize("outer", sorted(ENCODINGS))
def test_an_expensive_inner_layer_is_not_read_if_it_is_large_for_the_wire(inner, outer):
    blocks = HUFFMAN_BLOCKS * 30_000 + b"\1\0\0\xff\xff"
    layer = blocks if inner == "deflate" else b"\x1f\x8b\x08\0" + bytes(6) + blocks + bytes(8)
    data = compress(outer, layer, 9)
    assert len(data) < 64 * 1024
    assert decompress(inner, layer, 20 << 20) == b"", "the layer is not valid"
    started = time.process_time()
    with pytest.raises(
        TooLargeError, match=r"more than 131072 bytes after its outer encoding is removed.* use one content"
    ):
        decompress(f"{inner}, {outer}", data, 20 << 20)
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize(
    ("inner", "outer"), [("gzip", "gzip"), ("gzip", "zstd"), ("zstd", "gzip"), ("deflate", "zstd")]
)
@pytest.mark.parametrize("name", ["ids", "text", "equal"])
def test_telemetry_with_two_encodings_is_read(inner, outer, name):
    record = b"2026-11-30T12:00:00Z GET /wp-admin/admin-ajax.php?action=heartbeat 200 in %d ms"
    body = {
        "ids": lambda: b"".join(os.urandom(24) + record % 5 for _ in range(8192)),
        "text": lambda: b"\n".join(record % (number % 4000) for number in range(30_000)),
        "equal": lambda: record * 30_000,
    }[name]()
    data = compress(outer, compress(inner, body), 9)
    assert decompress(f"{inner}, {outer}", data, 20 << 20) == body


def test_an_inner_layer_may_have_twice_the_bytes_received():
    layer = os.urandom(100_000) * 2  # incompressible for gzip, whose window is 32 KiB
    twice = gzip.compress(layer, 0)
    data = compress("zstd", twice)
    assert len(twice) < 2 * len(data)
    assert decompress("gzip, zstd", data, 20 << 20) == layer
    stored = gzip.compress(os.urandom(100_000) * 3, 0)
    with pytest.raises(TooLargeError, match="after its outer encoding"):
        decompress("gzip, zstd", compress("zstd", stored), 20 << 20)
    assert decompress("gzip, zstd", compress("zstd", stored), 20 << 20, ratio=0)


def test_the_parts_of_an_inner_layer_are_counted_for_the_bytes_received():
    members = gzip.compress(b"", mtime=0) * 3000
    assert decompress("gzip", gzip.compress(b"", mtime=0) * 60, 100) == b""
    with pytest.raises(MalformedError, match=r"more than 6[0-9] members"):
        decompress("gzip, gzip", gzip.compress(members), 20 << 20)
