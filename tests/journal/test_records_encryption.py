"""Encrypted records, and the fields that are stored only if there is something in them."""

import json
import os
import struct
import zlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from otelwp_agent.at_rest.cipher import FileCipher
from otelwp_agent.journal import records
from otelwp_agent.journal.records import JournalDamage, JournalRecord, JournalSnapshot, RecordKind
from otelwp_agent.model.signal import Signal

MARKER = bytes(range(8))
KEY = bytes(range(32))
AT = 5000
"""Position of the first record in the file, in bytes."""


@pytest.fixture
def writing():
    """Return a cipher that encrypts each offset once, as for a new file."""
    cipher = FileCipher.new()
    cipher.key, cipher._aead = KEY, AESGCM(KEY)
    return cipher


READING = FileCipher(KEY)


def sealed(kind, payload, offset, *, signal=0, context=0, items=0, seq=0):
    """Return an encrypted record as the description of the format has it."""
    head = struct.pack("<8sBBHIIQ", MARKER, kind | 0x80, signal, context, len(payload) + 16, items, seq)
    data = AESGCM(KEY).encrypt(offset.to_bytes(12, "little"), payload, head)
    return head + struct.pack("<I", zlib.crc32(head + data)) + data


def entry(seq, body, cipher, offset):
    return b"".join(records.entry(MARKER, seq, Signal.METRICS, 7, 5, body, cipher, offset))


def test_encrypted_records_have_the_described_format(writing):
    written = entry(2**40, b"body", writing, AT)
    assert written == sealed(3, b"body", AT, signal=1, context=7, items=5, seq=2**40)
    (old,) = records.read(written, MARKER, READING, AT)
    moved = b"".join(records.moved(MARKER, 2**41, 8, old, writing, AT + 100))
    plain = struct.pack("<Q", 2**40) + b"body"
    assert moved == sealed(4, plain, AT + 100, signal=1, context=8, items=5, seq=2**41)
    other = b"".join(records.other(MARKER, RecordKind.CONTEXT, b"origin", 9, writing, AT + 200))
    assert other == sealed(2, b"origin", AT + 200, context=9)


def test_an_encrypted_record_is_read_with_its_size_in_the_file(writing):
    data = entry(1, b"body", writing, AT)
    (found,) = records.read(data, MARKER, READING, AT)
    assert (found.offset, found.kind, found.body(), found.overhead) == (0, RecordKind.ENTRY, b"body", 16)
    assert (found.seq, found.signal, found.context, found.items) == (1, Signal.METRICS, 7, 5)
    assert found.size == found.end == len(data)


@pytest.mark.parametrize(
    ("cipher", "base"),
    [(None, AT), (READING, 0), (READING, AT + 1), (FileCipher(KEY[::-1]), AT)],
    ids=["no cipher", "the offset in the data", "another offset", "another key"],
)
def test_an_encrypted_record_is_damage_without_its_cipher_or_at_another_offset(writing, cipher, base):
    data = entry(1, b"body", writing, AT)
    assert list(records.read(data, MARKER, cipher, base)) == [JournalDamage(0, len(data))]


def test_a_record_that_is_not_encrypted_is_damage_with_a_cipher_unless_it_is_a_key():
    data = b"".join(records.entry(MARKER, 1, Signal.METRICS, 7, 5, b"body"))
    assert list(records.read(data, MARKER, READING)) == [JournalDamage(0, len(data))]
    key = b"".join(records.other(MARKER, RecordKind.KEY, b"the encrypted key"))
    (found,) = records.read(key, MARKER, READING)
    assert (found.kind, bytes(found.payload), found.overhead) == (RecordKind.KEY, b"the encrypted key", 0)


@pytest.mark.parametrize("window", [60, 100, records.WINDOW])
@pytest.mark.parametrize("skipped", [0, 1])
def test_a_scan_decrypts_each_record_with_its_offset_in_the_file(writing, tmp_path, monkeypatch, window, skipped):
    data, offsets = b"", []
    for seq in range(4):
        offsets.append(len(data))
        data += entry(seq, b"%d" % seq * 20, writing, len(data))
    path = tmp_path / "segment"
    path.write_bytes(data)
    monkeypatch.setattr(records, "WINDOW", window)
    fd = os.open(path, os.O_RDONLY)
    found = list(records.scan(fd, MARKER, len(data), offsets[skipped], READING))
    os.close(fd)
    assert all(isinstance(each, JournalRecord) for each in found)
    assert [(each.offset, each.body()) for each in found] == [
        (offsets[seq], b"%d" % seq * 20) for seq in range(skipped, 4)
    ]


def test_a_snapshot_has_the_messages_that_are_remembered():
    row = ("otlp", "acme", "00" * 24)
    data = JournalSnapshot(7, [], 12.5, messages=[row]).encode()
    assert json.loads(data) == {"first": 7, "accounts": [], "time": 12.5, "adjusted": False, "messages": [[*row]]}
    assert JournalSnapshot.decode(memoryview(data)).messages == [[*row]]
    assert JournalSnapshot.decode(memoryview(JournalSnapshot(7, [], 12.5).encode())).messages == ()
