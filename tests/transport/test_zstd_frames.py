import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.errors import MalformedError
from otelwp_agent.transport.zstd_frames import check_frames

SKIPPABLE = b"\x53\x2a\x4d\x18\x03\0\0\0abc"
MOST = 100


def written(data, *, flush, checksum, size):
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size).compressobj(
        size=len(data) if size else -1
    )
    half = len(data) // 2
    parts = [compressor.compress(data[:half])]
    if flush:
        parts.append(compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join([*parts, compressor.compress(data[half:]), compressor.flush()])


@given(
    bodies=st.lists(st.binary(max_size=3000), min_size=1, max_size=3),
    flush=st.booleans(),
    checksum=st.booleans(),
    size=st.booleans(),
    skippable=st.booleans(),
    cut=st.integers(min_value=1, max_value=3000),
)
def test_whole_frames_pass_and_cut_ones_do_not(bodies, flush, checksum, size, skippable, cut):  # noqa: PLR0917
    frames = [written(body, flush=flush, checksum=checksum, size=size) for body in bodies]
    data = (SKIPPABLE if skippable else b"").join(frames)
    check_frames(data, MOST)
    with pytest.raises(MalformedError, match="cut short"):
        check_frames(data[: len(data) - min(cut, len(frames[-1]) - 1)], MOST)
    with pytest.raises(MalformedError, match="4 bytes follow"):
        check_frames(data + b"junk", MOST)


def test_what_does_not_begin_with_a_frame_is_not_zstd():
    with pytest.raises(MalformedError, match="not zstd"):
        check_frames(b"{}" * 50, MOST)


@pytest.mark.parametrize("part", [zstandard.ZstdCompressor().compress(b""), SKIPPABLE], ids=["empty", "skippable"])
def test_too_many_frames_are_refused(part):
    with pytest.raises(MalformedError, match="more than 100 frames and blocks"):
        check_frames(part * 101, MOST)


def test_too_many_blocks_are_refused():
    with pytest.raises(MalformedError, match="more than 100 frames and blocks"):
        check_frames(b"\x28\xb5\x2f\xfd\0\x48" + b"\0\0\0" * 100 + b"\1\0\0", MOST)


def test_a_reserved_block_type_is_refused():
    with pytest.raises(MalformedError, match="reserved"):
        check_frames(b"\x28\xb5\x2f\xfd\0\x48\7\0\0", MOST)
