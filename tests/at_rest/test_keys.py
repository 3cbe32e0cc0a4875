import base64

import orjson
import pytest

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.at_rest.slots import decode_slots, encode_slots
from tests.kit.storage_keys import storage_keys

BINDING = b"a segment"


def test_a_key_is_read_in_base64_and_in_hexadecimal():
    key = LocalKey.new()
    assert LocalKey.parse(f" {key.text}\n") == LocalKey.parse(key.secret.hex()) == key
    assert len(key.key_id) == 16
    assert key.text not in repr(key)
    assert repr(key.secret) not in repr(key)


@pytest.mark.parametrize("text", ["", "secret", "A" * 42 + "==", "A" * 44, "g" * 64, "ü" * 44])
def test_what_is_not_a_key_is_refused_without_being_shown(text):
    with pytest.raises(ValueError, match="not a key of 32 bytes") as error:
        LocalKey.parse(text)
    assert not text or text not in str(error.value)


def test_a_file_is_opened_by_the_key_it_was_written_with_also_when_that_is_a_previous_one():
    old, new = LocalKey.new(), LocalKey.new()
    cipher, wrapped = storage_keys(old).new_cipher(BINDING)
    assert cipher.key not in wrapped
    assert base64.b64encode(cipher.key) not in wrapped
    for keys in (storage_keys(old), storage_keys(new, old)):
        assert keys.open(wrapped, BINDING, "a file").key == cipher.key
    later, wrapped = storage_keys(new, old).new_cipher(BINDING)
    assert storage_keys(new).open(wrapped, BINDING, "a file").key == later.key


def test_a_wrong_key_is_reported_with_the_ids_of_both():
    written, other = LocalKey.new(), LocalKey.new()
    _, wrapped = storage_keys(written).new_cipher(BINDING)
    with pytest.raises(FileKeyError) as error:
        storage_keys(other).open(wrapped, BINDING, "a file")
    assert str(error.value) == (
        f"a file is encrypted; it needs key {written.key_id}, and the configured keys are {other.key_id}: give the key "
        "with which it was written"
    )


def test_a_data_key_of_another_file_is_refused():
    keys = storage_keys(LocalKey.new())
    _, wrapped = keys.new_cipher(BINDING)
    with pytest.raises(SealedDataError, match="a file: its data key was changed"):
        keys.open(wrapped, b"another", "a file")


@pytest.mark.parametrize("change", ["data", "no data", "not base64", "short"])
def test_a_changed_slot_is_refused(change):
    keys = storage_keys(LocalKey.new())
    _, wrapped = keys.new_cipher(BINDING)
    (slot,) = decode_slots(wrapped, "")
    if change == "data":
        data = bytearray(base64.b64decode(slot["data"]))
        data[20] ^= 1
        slot["data"] = base64.b64encode(data).decode()
    elif change == "no data":
        del slot["data"]
    else:
        slot["data"] = {"not base64": "*", "short": "AAAA"}[change]
    with pytest.raises(SealedDataError, match="a file: its data key"):
        keys.open(encode_slots([slot]), BINDING, "a file")


@pytest.mark.parametrize(
    "wrapped", [b"", b"[]", b"{}", orjson.dumps({"version": 1, "slots": [1]}), orjson.dumps({"version": 1, "slots": 7})]
)
def test_what_is_no_data_key_is_refused(wrapped):
    with pytest.raises(SealedDataError, match="a file: its encrypted data key"):
        storage_keys(LocalKey.new()).open(wrapped, BINDING, "a file")
