"""Segments whose records are encrypted, without a journal around them."""

import pytest

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.at_rest.loading import load_keys
from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.journal import records
from otelwp_agent.journal.records import HEADER_BYTES, JournalDamage, RecordKind
from otelwp_agent.journal.segment import Segment
from otelwp_agent.model.signal import Signal
from tests.journal.conftest import KEYS, open_files

BODIES = [b"first", b"the second"]
OTHER_KEYS = load_keys(StorageEncryption(key=LocalKey.new().text), "encryption")


@pytest.fixture
def written(tmp_path):
    """Return a closed segment with two copies of its data key and two entries."""
    segment = Segment.create(tmp_path, 3, 10, KEYS)
    for _ in range(2):
        segment.size += segment.write(records.other(segment.marker, RecordKind.KEY, segment.data_key), sync=False)
    for seq, body in enumerate(BODIES, 10):
        segment.offsets.append(segment.size)
        segment.states.append(0)
        parts = records.entry(segment.marker, seq, Signal.TRACES, 0, 1, body, segment.cipher, segment.size)
        segment.size += segment.write(parts, sync=False)
    segment.close()
    return segment


@pytest.fixture
def reopen(written):
    """Return a function that opens the written segment again and sets the offsets of its entries."""
    found = []

    def reopen(keys=KEYS):
        segment = Segment.open(written.path, keys=keys)
        found.append(segment)
        segment.first, segment.offsets, segment.states = 10, written.offsets, written.states
        return segment

    yield reopen
    for segment in found:
        segment.close()


def damage_key(segment, *copies):
    """Flip a bit in these copies of the data key."""
    data = bytearray(segment.path.read_bytes())
    for copy in copies:
        data[copy * (HEADER_BYTES + len(segment.data_key)) + HEADER_BYTES + 10] ^= 1
    segment.path.write_bytes(data)


def test_its_records_are_read_with_its_keys(written, reopen):
    segment = reopen()
    assert (segment.data_key, segment.cipher.key) == (written.data_key, written.cipher.key)
    found = list(segment.scan())
    assert [record.body() for record in found] == BODIES
    assert [record.offset for record in found] == list(written.offsets)
    assert [segment.entry(index).body() for index in range(2)] == BODIES


@pytest.mark.parametrize("copy", [0, 1])
def test_one_copy_of_the_data_key_is_enough(written, reopen, copy):
    damage_key(written, copy)
    segment = reopen()
    assert segment.data_key == written.data_key
    damage, *found = segment.scan()
    assert isinstance(damage, JournalDamage)
    assert [record.body() for record in found] == BODIES


def test_without_any_copy_of_the_data_key_all_of_it_is_damage(written, reopen):
    damage_key(written, 0, 1)
    segment = reopen()
    assert (segment.cipher, segment.data_key) == (None, b"")
    assert [(found.offset, found.length) for found in segment.scan()] == [(0, segment.size)]


@pytest.mark.parametrize(("given", "ids"), [(OTHER_KEYS, OTHER_KEYS.ids), (None, ())], ids=["other keys", "no keys"])
def test_without_its_key_it_cannot_be_opened(written, tmp_path, given, ids):
    with pytest.raises(FileKeyError) as error:
        Segment.open(written.path, keys=given)
    assert str(error.value) == str(FileKeyError(written.path.name, KEYS.ids, ids))
    assert open_files(tmp_path) == []


def key_of_another_segment(written):
    """Return a record with a data key that is bound to another segment's marker."""
    _, foreign = KEYS.new_cipher(b"another.")
    return b"".join(records.other(written.marker, RecordKind.KEY, foreign))


def test_the_data_key_of_another_segment_is_refused_with_the_name_of_the_file(written, tmp_path):
    rest = written.path.read_bytes()[written.offsets[0] :]
    written.path.write_bytes(2 * key_of_another_segment(written) + rest)
    with pytest.raises(SealedDataError) as error:
        Segment.open(written.path, keys=KEYS)
    assert str(error.value).startswith(f"{written.path.name}: ")
    assert open_files(tmp_path) == []


def test_the_right_copy_of_the_data_key_is_used_if_the_other_was_changed(written, reopen):
    data = written.path.read_bytes()
    size = HEADER_BYTES + len(written.data_key)
    written.path.write_bytes(key_of_another_segment(written) + data[size:])
    segment = reopen()
    assert segment.data_key == written.data_key
    assert [segment.entry(index).body() for index in range(2)] == BODIES


def test_a_segment_that_is_not_encrypted_has_no_data_key(tmp_path):
    segment = Segment.create(tmp_path, 3, 10)
    again = Segment.open(segment.path, keys=KEYS)
    for each in (segment, again):
        assert (each.cipher, each.data_key, each.is_writable) == (None, b"", True)
        each.close()


def test_a_segment_is_written_only_behind_what_was_encrypted_for_it(tmp_path):
    segment = Segment.create(tmp_path, 3, 10, KEYS)
    assert segment.is_writable
    segment.cipher.encrypt(segment.size, b"never written", b"")
    assert not segment.is_writable
    segment.close()
