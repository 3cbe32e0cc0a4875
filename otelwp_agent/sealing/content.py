"""Decompress what was in an envelope, within the size that its header states."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from otelwp_agent.errors import MalformedError, TooLargeError
from otelwp_agent.sealing.errors import SealedError, SealedReason
from otelwp_agent.transport.compression import FREE_OUTPUT, MAX_RATIO, UnknownEncodingError, decompress

if TYPE_CHECKING:
    from otelwp_agent.sealing.envelope import SealedHeader


def decode(header: SealedHeader, content: bytes, limit: int) -> bytes:
    """Return the OTLP request in the opened `content`, which has at most `limit` bytes.

    `header` must be authenticated: call `envelope.unseal` first. The size that it states is a second limit, because
    senders are metered by it. Raises `SealedError` (`too_large`, `malformed`).
    """
    if header.plain_size > limit:
        message = f"the envelope holds {header.plain_size} bytes, the most is {limit}"
        raise SealedError(SealedReason.TOO_LARGE, message)
    if header.encodings == ("zstd",):
        whole = _inflate_frame(content, header.plain_size)
        if whole is not None:
            return whole
    try:
        plain = decompress(", ".join(header.encodings), content, min(limit, header.plain_size))
    except TooLargeError as error:
        raise SealedError(SealedReason.TOO_LARGE, f"the content of the envelope is too large: {error}") from None
    except (MalformedError, UnknownEncodingError) as error:
        raise SealedError(SealedReason.MALFORMED, f"the content of the envelope is not valid: {error}") from None
    if len(plain) != header.plain_size:
        message = f"the content has {len(plain)} bytes, but the header of the envelope says {header.plain_size}"
        raise SealedError(SealedReason.MALFORMED, message)
    return plain


_of_thread = threading.local()


def _inflate_frame(content: bytes, size: int) -> bytes | None:
    """Return the content of a single zstd frame that states `size`, or `None` if it is anything else.

    This is nearly every content, and takes a third of the time of `decompress`, which knows no size. The memory is that
    of `size` bytes.
    """
    import zstandard  # noqa: PLC0415 - only users of zstd need its memory

    try:
        if size > max(FREE_OUTPUT, MAX_RATIO * len(content)):
            return None
        if zstandard.get_frame_parameters(content).content_size != size:
            return None
        inflater: Any = getattr(_of_thread, "inflater", None)
        if inflater is None:  # one cannot be used by several threads at once
            inflater = _of_thread.inflater = zstandard.ZstdDecompressor()
        return bytes(inflater.decompress(content, allow_extra_data=False))
    except zstandard.ZstdError:
        return None
