from dataclasses import replace

import pytest

from otelwp_agent.at_rest.errors import FileKeyError
from otelwp_agent.at_rest.keys import LocalKey, StorageKeys
from otelwp_agent.dead_letters import records
from otelwp_agent.dead_letters.file import LetterFile, read_bodies, read_letters
from otelwp_agent.dead_letters.records import Letter
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.suites import SealingSuite
from otelwp_agent.storage import files
from tests.at_rest.test_recipients import pair
from tests.kit.storage_keys import storage_keys

KEY = LocalKey.new()
KEYS = storage_keys(KEY)


def letter(identifier, size=11):
    return Letter(
        identifier, 1.0, "sink", Signal.TRACES, 1, size, "malformed", f"secret message {identifier}", tenant="t"
    )


def opened(path, keys, max_size=2**20):
    file = LetterFile(path, max_size, keys=keys)
    file.open()
    return file


def bodies(path, keys=KEYS):
    return {
        one.id: (one.error, body)
        for one, body in read_bodies(path, [one.id for one in read_letters(path).letters], keys)
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "dead-letters"


def test_bodies_and_messages_are_not_in_the_file_in_clear(path):
    file = opened(path, KEYS)
    for identifier in ("1", "2"):
        file.append(letter(identifier), b"secret body")
    assert b"secret" not in path.read_bytes()
    assert [one.error for one in read_letters(path).letters] == ["", ""]
    assert bodies(path) == {"1": ("secret message 1", b"secret body"), "2": ("secret message 2", b"secret body")}
    with pytest.raises(FileKeyError, match=f"letter 1 is encrypted; it needs key {KEY.key_id}, and no key"):
        bodies(path, None)
    with pytest.raises(FileKeyError, match="the configured keys are"):
        bodies(path, storage_keys(LocalKey.new()))
    file.close()


def test_letters_of_several_runs_and_keys_stay_in_one_file_through_rewrites(path):
    plain, other = opened(path, None), LocalKey.new()
    plain.append(letter("1"), b"secret body")
    plain.close()
    for identifier, keys in (("2", KEYS), ("3", storage_keys(other, KEY)), ("4", storage_keys(other, KEY))):
        file = opened(path, keys)
        file.append(letter(identifier), b"secret body")
        file.close()
    file = opened(path, None)  # an agent without keys can still remove and rewrite
    before = file.living_bytes
    assert file.dead_bytes == 0
    file.rewrite()
    assert (file.size, file.living_bytes, file.dead_bytes) == (path.stat().st_size, before, 0)
    file.rewrite(lambda one: one.id == "3")
    file.close()
    found = bodies(path, storage_keys(other, KEY))
    assert found == {identifier: (f"secret message {identifier}", b"secret body") for identifier in ("1", "2", "4")}
    assert path.read_bytes().count(b"data_key") == 2 * 2, "data keys without letters are gone"


def test_sizes_are_those_in_the_file(path):
    file = opened(path, KEYS)
    for identifier in ("1", "2", "3"):
        file.append(letter(identifier), b"secret body")
    letters = read_letters(path).letters
    living = file.living_bytes
    assert living == sum(records.record_bytes(one) for one in letters)
    file.remove(letters[:1])
    assert file.living_bytes == living - records.record_bytes(letters[0])
    file.close()
    again = opened(path, KEYS)
    assert again.living_bytes == living - records.record_bytes(letters[0])
    again.remove(letters[1:])
    assert again.living_bytes == 0
    again.rewrite()
    assert again.size == records.PREFIX_BYTES
    assert again.append(letter("9"), b"secret body")
    assert list(bodies(path)) == ["9"]
    again.close()


def test_a_full_file_is_rewritten_and_then_accepts_a_letter_with_its_key(path):
    file = opened(path, KEYS, 4096)
    count = 0
    while file.append(letter(str(count)), b"secret body"):
        count += 1
    assert count > 3
    assert file.size <= 4096
    file.remove(read_letters(path).letters)
    assert file.append(letter("new"), b"secret body")
    assert list(bodies(path)) == ["new"]
    file.close()


def test_a_write_that_failed_does_not_leave_letters_without_a_key(path, monkeypatch):
    file = opened(path, KEYS)

    def broken(_fd, _data):
        raise OSError(28, "No space left on device")

    real = files.write_all
    monkeypatch.setattr(files, "write_all", broken)
    with pytest.raises(OSError, match="No space"):
        file.append(letter("1"), b"secret body")
    monkeypatch.setattr(files, "write_all", real)
    assert file.append(letter("2"), b"secret body")
    file.close()
    assert list(bodies(path)) == ["2"]


def test_one_damaged_copy_of_the_data_key_costs_nothing(path):
    file = opened(path, KEYS)
    file.append(letter("1"), b"secret body")
    file.close()
    data = bytearray(path.read_bytes())
    data[records.PREFIX_BYTES + 60] ^= 1
    path.write_bytes(data)
    assert read_letters(path).damaged == 1
    assert list(bodies(path)) == ["1"]


def test_letters_for_a_recipient_are_written_listed_and_purged_by_the_agent_and_read_by_the_owner(path):
    public, private = pair(SealingSuite.X25519)
    agent = StorageKeys([public], [])
    file = opened(path, agent)
    file.append(letter("1"), b"secret body")
    file.append(letter("2"), b"secret body")
    with pytest.raises(FileKeyError, match="it needs key owner, and no key is configured"):
        bodies(path, agent)
    assert [one.id for one in file.rewrite(lambda one: one.id == "1")] == ["1"]
    file.close()
    assert bodies(path, StorageKeys([], [private])) == {"2": ("secret message 2", b"secret body")}


def test_a_letter_in_the_form_of_an_older_version_is_read(path):
    one = letter("1")
    assert "sealed" not in one.to_json()
    assert records.Letter.from_json(one.to_json()) == one
    sealed = replace(one, sealed=("k", 3), stored=20)
    assert records.Letter.from_json(sealed.to_json()) == sealed
