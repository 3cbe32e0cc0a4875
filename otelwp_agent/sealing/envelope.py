"""Write, read and open sealed envelopes; `docs/topics/sealed-envelope.md` specifies the format.

    magic `OWS1` | header length (2 bytes, big-endian) | header (protobuf) | encapsulated key | ciphertext with tag

`LABEL` and the exact bytes of the header are the `info` of HPKE, so that an envelope with a changed header does not
open. A header can be read without a key, but it is authenticated only when the envelope is opened.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.envelope_pb2 import EnvelopeHeader
from otelwp_agent.sealing.errors import SealedError, SealedReason
from otelwp_agent.sealing.suites import TAG_BYTES, NotDecryptedError, SealingSuite

if TYPE_CHECKING:
    from otelwp_agent.sealing.key_ring import KeyRing
    from otelwp_agent.sealing.recipient import Recipient

MEDIA_TYPE = "application/vnd.otelwp.sealed"
"""`Content-Type` of an envelope in a request."""
ENCODING = "sealed"
"""The last of a batch's encodings if its body is an envelope."""
MAGIC = b"OWS1"
VERSION = 1
LABEL = b"otelwp sealed envelope 1\n"
"""The first bytes of the `info` of HPKE."""

TRANSPORT = "transport"
"""Purpose of an envelope that is sent to a collector. Files have other purposes, so that they cannot be sent."""
OTLP = "application/x-protobuf"
"""Content type of an OTLP request in protobuf."""

MAX_HEADER_BYTES = 2048
MAX_TEXT = 128
"""Maximum number of characters of each text in a header."""
MAX_ENCODINGS = 2
MESSAGE_ID_BYTES = 16
_PREFIX_BYTES = len(MAGIC) + 2
_SIGNALS = {signal.value: signal for signal in Signal}
_SUITES = {suite.value: suite for suite in SealingSuite}
_MAX_NUMBER = 2**53
"""Numbers of a header are below this, so that every language can read them."""


@dataclass(frozen=True, slots=True)
class SealedHeader:
    """The part of an envelope that is in clear.

    `suite` and `key_id` are those of the recipient: `seal` sets them. `time` is when the envelope was sealed, in
    milliseconds since 1970. `encodings` are those of the content (`("zstd",)`), without `sealed`. `items` are the items
    of the OTLP request and `plain_size` its bytes before all encodings.
    """

    customer: str
    time: int
    agent: str = ""
    message_id: bytes = b""
    """16 random bytes; `seal` makes them if there are none. A message that is sent again keeps its id."""
    signal: Signal | None = None
    encodings: tuple[str, ...] = ()
    items: int = 0
    plain_size: int = 0
    purpose: str = TRANSPORT
    content_type: str = OTLP
    key_id: str = ""
    suite: int = 0
    """Number of the suite; it may be one that this version does not have."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that has been read and not opened: nothing in `header` is authenticated yet."""

    header: SealedHeader
    header_bytes: bytes
    sealed: memoryview
    """Encapsulated key and ciphertext."""

    @property
    def content_bytes(self) -> int:
        """Bytes of the content, as the length of the ciphertext shows; 0 if the suite is unknown."""
        suite = _SUITES.get(self.header.suite)
        return 0 if suite is None else max(0, len(self.sealed) - suite.overhead)


def seal(recipient: Recipient, header: SealedHeader, body: bytes) -> bytes:
    """Return `body` as an envelope that only `recipient` can open.

    Raises `ValueError` if the header has a value that `parse` would refuse.
    """
    header = replace(
        header,
        suite=recipient.suite.value,
        key_id=recipient.key_id,
        message_id=header.message_id or os.urandom(MESSAGE_ID_BYTES),
    )
    if problem := _problem(header):
        raise ValueError(problem)
    data = EnvelopeHeader(
        version=VERSION,
        suite=header.suite,
        key_id=header.key_id,
        customer=header.customer,
        agent=header.agent,
        time_unix_ms=header.time,
        message_id=header.message_id,
        purpose=header.purpose,
        content_type=header.content_type,
        signal="" if header.signal is None else header.signal.value,
        encodings=header.encodings,
        items=header.items,
        plain_size=header.plain_size,
    ).SerializeToString(deterministic=True)
    if len(data) > MAX_HEADER_BYTES:
        raise ValueError(f"the header has {len(data)} bytes, the most is {MAX_HEADER_BYTES}")
    sealed = recipient.suite.encrypt(recipient.loaded, body, LABEL + data)
    return b"".join((MAGIC, len(data).to_bytes(2, "big"), data, sealed))


def parse(data: bytes) -> Envelope:
    """Read the header of an envelope, without a key; raise `SealedError` (`malformed`, `too_large`).

    It costs the same whatever the size of the envelope: the ciphertext is not copied.
    """
    if not data.startswith(MAGIC):
        raise _malformed(f"it does not begin with {MAGIC.decode()}")
    if len(data) < _PREFIX_BYTES:
        raise _malformed("it is cut short")
    length = int.from_bytes(data[len(MAGIC) : _PREFIX_BYTES], "big")
    if length > MAX_HEADER_BYTES:
        message = f"the header of the envelope has {length} bytes, the most is {MAX_HEADER_BYTES}"
        raise SealedError(SealedReason.TOO_LARGE, message)
    end = _PREFIX_BYTES + length
    if len(data) < end + TAG_BYTES:
        raise _malformed("it is cut short")
    header_bytes = data[_PREFIX_BYTES:end]
    return Envelope(_read_header(header_bytes), header_bytes, memoryview(data)[end:])


def unseal(envelope: Envelope, ring: KeyRing, now: float, purpose: str = TRANSPORT) -> bytes:
    """Return the content of an envelope; `now` is in seconds since 1970.

    The content still has the encodings of the header. Whether the envelope is fresh and whose it is, the caller checks
    (`freshness`, `replay_cache`). Raises `SealedError` (`unknown_key`, `wrong_suite`, `altered`, `malformed`).
    """
    header = envelope.header
    if header.purpose != purpose:
        raise _malformed(f"its purpose is {header.purpose!r}, not {purpose!r}")
    suite = _SUITES.get(header.suite)
    if suite is None:
        known = ", ".join(f"{one.value} ({one.name})" for one in SealingSuite)
        raise SealedError(SealedReason.WRONG_SUITE, f"the suite {header.suite} is unknown; known are {known}")
    key = ring.find(header.key_id, now)
    if key.suite is not suite:
        message = f"the key {header.key_id!r} is of suite {key.suite.name}, not {suite.name}: refresh the key set"
        raise SealedError(SealedReason.WRONG_SUITE, message)
    try:
        return suite.decrypt(key.loaded, envelope.sealed, LABEL + envelope.header_bytes)
    except NotDecryptedError:
        message = f"the envelope was changed, or was not sealed to the key {header.key_id!r}: seal it again"
        raise SealedError(SealedReason.ALTERED, message) from None


def _read_header(data: bytes) -> SealedHeader:
    """Return the header in `data`; raise `SealedError` (`malformed`)."""
    try:
        message = EnvelopeHeader.FromString(data)
    except DecodeError:
        raise _malformed("its header is not protobuf") from None
    if message.version != VERSION:
        raise _malformed(f"it has version {message.version}, this agent reads version {VERSION}")
    if message.signal and message.signal not in _SIGNALS:
        raise _malformed(f"the signal {message.signal[:MAX_TEXT]!r} is unknown")
    header = SealedHeader(
        message.customer,
        message.time_unix_ms,
        message.agent,
        message.message_id,
        _SIGNALS.get(message.signal),
        tuple(message.encodings),
        message.items,
        message.plain_size,
        message.purpose,
        message.content_type,
        message.key_id,
        message.suite,
    )
    if problem := _problem(header):
        raise _malformed(problem)
    return header


def _problem(header: SealedHeader) -> str:
    """Return what is wrong with a header, "" if nothing is."""
    texts = {
        "customer": header.customer,
        "agent": header.agent,
        "purpose": header.purpose,
        "content_type": header.content_type,
        "key_id": header.key_id,
    }
    for name, text in texts.items():
        if len(text) > MAX_TEXT or not text.isprintable():
            return f"`{name}` must have at most {MAX_TEXT} printable characters"
    if not header.key_id or not header.purpose:
        return "`key_id` and `purpose` must not be empty"
    if len(header.message_id) != MESSAGE_ID_BYTES:
        return f"`message_id` must have {MESSAGE_ID_BYTES} bytes"
    if len(header.encodings) > MAX_ENCODINGS or not all(map(_is_name, header.encodings)):
        return f"`encodings` must be at most {MAX_ENCODINGS} names of compressions"
    if not all(0 <= number < _MAX_NUMBER for number in (header.time, header.items, header.plain_size)):
        return f"`time_unix_ms`, `items` and `plain_size` must be below {_MAX_NUMBER}"
    return ""


def _is_name(encoding: str) -> bool:
    return encoding.isprintable() and 0 < len(encoding) <= MAX_TEXT and encoding != ENCODING


def _malformed(problem: str) -> SealedError:
    return SealedError(SealedReason.MALFORMED, f"the body is not a valid envelope: {problem}")
