import asyncio
import os

import pytest
import structlog

from otelwp_agent.at_rest.errors import FileKeyError
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.errors import StartError
from otelwp_agent.journal import records
from otelwp_agent.journal.audit import audit_directory
from otelwp_agent.journal.records import HEADER_BYTES, SEALED, RecordKind
from otelwp_agent.journal.recovery import read_directory
from otelwp_agent.journal.segment import Segment
from otelwp_agent.journal.verify import verify_directory
from tests.journal.conftest import ENCRYPTION, KEYS

MARKERS = [b"marker-%04d" % number for number in range(50)]
OTHER = {"key": LocalKey.new().text}


@pytest.fixture
def encryption():
    return ENCRYPTION


def segments(life):
    return sorted(life.journal.directory.glob("*.journal"))


def keep(path):
    """Return the records of a segment as (kind, bytes), without decrypting them."""
    data, marker = path.read_bytes(), bytes.fromhex(path.stem.partition("-")[2])
    found, offset = [], 0
    while offset < len(data):
        length = int.from_bytes(data[offset + 12 : offset + 16], "little")
        assert data[offset : offset + 8] == marker
        found.append((data[offset + 8], data[offset : offset + HEADER_BYTES + length]))
        offset += HEADER_BYTES + length
    return found


async def test_nothing_of_a_request_or_its_sender_is_on_disk_in_clear(live):
    life = live()
    await life.put(*MARKERS, tenant="the-tenant", pipelines=("traces/secret",))
    (path,) = segments(life)
    data = path.read_bytes()
    for text in (*MARKERS, b"the-tenant", b"traces/secret", b"accounts"):
        assert text not in data
    life.kill()
    second = live()
    assert second.bodies() == MARKERS
    assert [row[:3] for row in second.recovered.accounts.values()] == [("traces/secret", "otlp", "the-tenant")]


async def test_the_same_journal_in_clear_shows_them(live):
    life = live(encryption=None)
    await life.put(*MARKERS, tenant="the-tenant")
    data = segments(life)[0].read_bytes()
    assert all(marker in data for marker in (*MARKERS, b"the-tenant"))


async def test_no_two_records_of_a_segment_have_the_same_nonce_and_no_two_segments_a_key(live, monkeypatch):
    from otelwp_agent.at_rest.cipher import FileCipher

    used, real = [], FileCipher.encrypt

    def encrypt(cipher, offset, plain, header):
        used.append((cipher.key, offset))
        return real(cipher, offset, plain, header)

    monkeypatch.setattr(FileCipher, "encrypt", encrypt)
    life = live()
    await life.put(*MARKERS)
    life.journal._store.current = None
    await life.put(*MARKERS)
    life.kill()
    second = live()
    await second.put(*MARKERS)
    assert len(used) == len(set(used)) > 150
    assert len({key for key, _ in used}) == 3


async def test_after_a_failed_write_the_next_one_uses_another_key(live, monkeypatch):
    life = live()
    (first,) = await life.put(b"a")
    key = first.entry.segment.cipher.key
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    (failed,) = await life.put(b"b")
    assert failed.error is not None
    monkeypatch.setattr(os, "pwritev", real)
    life.journal._failure.refuse_until = 0.0
    (later,) = await life.put(b"c")
    assert later.entry.segment.cipher.key != key


async def test_a_commit_that_was_built_and_not_written_makes_a_new_segment(live):
    life = live()
    (first,) = await life.put(b"a")
    segment = first.entry.segment
    segment.cipher.encrypt(segment.size, b"never written", b"")
    (later,) = await life.put(b"b")
    assert later.entry.segment is not segment
    life.kill()
    assert live().bodies() == [b"a", b"b"]


async def test_encryption_that_is_switched_on_and_off_keeps_every_request(live):
    plain = live(encryption=None)
    await plain.put(b"plain")
    plain.kill()
    encrypted = live()
    await encrypted.put(b"encrypted")
    encrypted.kill()
    found = verify_directory(encrypted.journal.directory, KEYS)
    assert (found.problems, found.keys) == ([], {"": 1, KEYS.ids[0]: 1})
    with pytest.raises(StartError, match="no key is configured"):
        live(encryption=None)
    third = live()
    assert third.bodies() == [b"plain", b"encrypted"]
    assert segments(third)[0].read_bytes().count(b"plain") == 1, "old segments are not rewritten"


@pytest.mark.parametrize("given", [OTHER, None], ids=["wrong key", "no key"])
async def test_a_wrong_key_refuses_the_start_and_changes_nothing(live, given):
    first = live()
    await first.put(*MARKERS)
    first.kill()
    before = {path.name: path.read_bytes() for path in first.journal.directory.iterdir()}
    with pytest.raises(StartError) as error:
        live(encryption=given)
    name = segments(first)[0].name
    assert f"service.journal.encryption: {name} is encrypted; it needs key {KEYS.ids[0]}" in str(error.value)
    assert "Nothing was changed" in str(error.value)
    assert {path.name: path.read_bytes() for path in first.journal.directory.iterdir()} == before
    assert live().bodies() == MARKERS


async def test_a_missing_key_file_refuses_the_start(live, tmp_path):
    with pytest.raises(StartError, match=r"service\.journal\.encryption\.key_file: cannot read the key file"):
        live(encryption={"key_file": str(tmp_path / "none")})
    assert not (tmp_path / "journal").exists()


async def test_the_readers_report_a_missing_key(live):
    life = live()
    await life.put(b"a")
    for read in (audit_directory, verify_directory, read_directory):
        with pytest.raises(FileKeyError, match="is encrypted; it needs key"):
            read(life.journal.directory)


async def test_a_new_key_is_for_new_segments_and_the_old_one_reads_until_they_are_gone(live, tmp_path):
    old = tmp_path / "old"
    old.write_text(ENCRYPTION["key"])
    life = live()
    (first,) = await life.put(b"old key")
    life.journal.encrypt_with(StorageEncryption(**OTHER, previous_key_files=[str(old)]))
    (second,) = await life.put(b"new key")
    assert first.entry.segment is not second.entry.segment
    assert life.replay() == []
    life.kill()
    with pytest.raises(StartError, match="it needs key"):
        live(encryption=OTHER)
    again = live(encryption={**OTHER, "previous_key_files": [str(old)]})
    replays = again.replay()
    assert [replay[1].body() for replay in replays] == [b"old key", b"new key"]
    for entry, _, _ in replays:
        again.journal.closed(entry)
    await again.flush()
    async with asyncio.timeout(60):
        while len(segments(again)) > 1:
            await asyncio.sleep(0.01)  # a thread deletes them
    again.kill()
    assert live(encryption=OTHER).bodies() == []


async def test_keys_that_cannot_be_loaded_change_nothing(live):
    life = live()
    with pytest.raises(StartError, match="not a key"):
        life.journal.encrypt_with(StorageEncryption(key="short"))
    await life.put(b"a")
    life.kill()
    assert live().bodies() == [b"a"]


@pytest.mark.parametrize("copy", [0, 1])
async def test_one_damaged_copy_of_the_data_key_costs_nothing(live, copy):
    life = live()
    await life.put(*MARKERS)
    life.kill()
    (path,) = segments(life)
    data = bytearray(path.read_bytes())
    data[copy * len(keep(path)[0][1]) + HEADER_BYTES + 60] ^= 1
    path.write_bytes(data)
    again = live()
    assert again.bodies() == MARKERS
    assert len(again.recovered.damage) == 1


async def test_without_any_copy_of_the_data_key_the_segment_is_damage_and_its_items_are_counted(live):
    life = live()
    await life.put(b"lost")
    life.journal._store.current = None
    await life.put(b"kept")
    life.kill()
    path, _ = segments(life)
    kinds = [kind for kind, _ in keep(path)]
    assert kinds[:3] == [RecordKind.KEY, RecordKind.KEY, RecordKind.SNAPSHOT | SEALED]
    path.write_bytes(b"".join(data for kind, data in keep(path) if kind != RecordKind.KEY))
    again = live()
    assert again.bodies() == [b"kept"]
    assert again.sums()[1][3] == 2, "the items of the lost request are dropped"
    assert again.recovered.damage


async def test_a_data_key_of_another_segment_refuses_the_start(live):
    life = live()
    await life.put(b"a")
    life.journal._store.current = None
    await life.put(b"b")
    life.kill()
    one, two = segments(life)
    marker = bytes.fromhex(one.stem.partition("-")[2])
    other = Segment.open(two, write=False, keys=KEYS)
    foreign = b"".join(records.other(marker, RecordKind.KEY, other.data_key))
    other.close()
    rest = b"".join(data for kind, data in keep(one) if kind != RecordKind.KEY)
    one.write_bytes(foreign * 2 + rest)
    with pytest.raises(StartError, match="its data key was changed"):
        live()


@pytest.mark.parametrize("change", ["items", "context", "body", "moved", "plain"])
async def test_a_record_that_was_changed_with_a_right_checksum_is_damage(live, change):
    life = live()
    await life.put(b"first", b"second", b"third")
    life.kill()
    (path,) = segments(life)
    marker = bytes.fromhex(path.stem.partition("-")[2])
    parts = keep(path)
    at = [place for place, (kind, _) in enumerate(parts) if kind == RecordKind.ENTRY | SEALED]
    head, body = bytearray(parts[at[1]][1][: HEADER_BYTES - 4]), bytearray(parts[at[1]][1][HEADER_BYTES:])
    if change == "items":
        head[16] += 1
    elif change == "context":
        head[10] += 1
    elif change == "body":
        body[0] ^= 1
    elif change == "moved":
        parts[at[1]], parts[at[2]] = parts[at[2]], parts[at[1]]
    if change == "plain":
        record = b"".join(records.entry(marker, 2, records.Signal.TRACES, 0, 2, b"forged" + bytes(16)))
    else:
        crc = records.crc32(bytes(body), records.crc32(bytes(head))).to_bytes(4, "little")
        record = bytes(head) + crc + bytes(body)
    if change != "moved":
        parts[at[1]] = (0, record)
    path.write_bytes(b"".join(data for _, data in parts))
    recovered = read_directory(life.journal.directory, write=False, keys=KEYS)
    assert recovered.damage
    recovered.close()
    wanted = [b"first", b"third"] if change != "moved" else [b"first"]
    assert live().bodies() == wanted


async def test_a_segment_that_is_cut_at_any_byte_loses_its_end_only(live):
    life = live()
    await life.put(b"first")
    await life.put(b"second")
    life.kill()
    (path,) = segments(life)
    data = path.read_bytes()
    ends = {}
    offset = 0
    for kind, part in keep(path):
        offset += len(part)
        if kind == RecordKind.ENTRY | SEALED:
            ends[offset] = None
    first, second = ends
    with structlog.testing.capture_logs():
        for size in range(len(data) - 1, 0, -7):
            path.write_bytes(data[:size])
            found = read_directory(life.journal.directory, write=False, keys=KEYS)
            assert found.entries == (size >= first) + (size >= second)
            assert found.damage == []
            found.close()


def test_a_sealed_record_is_no_record_without_its_cipher(tmp_path):
    segment = Segment.create(tmp_path, 1, 1, KEYS)
    parts = records.entry(segment.marker, 1, records.Signal.LOGS, 0, 3, b"body", segment.cipher, 0)
    data = b"".join(parts)
    assert [type(found).__name__ for found in records.read(data, segment.marker)] == ["JournalDamage"]
    (found,) = records.read(data, segment.marker, segment.cipher)
    assert (found.body(), found.items, found.seq, found.signal, found.end) == (
        b"body",
        3,
        1,
        records.Signal.LOGS,
        len(data),
    )
    assert list(records.read(data, segment.marker, segment.cipher, 1)) != [found]
    segment.close()
