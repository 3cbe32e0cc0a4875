import base64

import pytest

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.keys import LocalKey, StorageKeys
from otelwp_agent.at_rest.recipients import PrivateKey, RecipientKey
from otelwp_agent.at_rest.slots import decode_slots, encode_slots, key_ids
from otelwp_agent.sealing.key_ring import OpeningKey
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite


def pair(suite, key_id="owner"):
    private = suite.generate()
    return RecipientKey(Recipient(key_id, suite, suite.public_bytes(private))), PrivateKey(
        OpeningKey(key_id, suite, private, not_after=1.0)
    )


@pytest.mark.parametrize("suite", SealingSuite)
def test_the_owner_of_the_private_key_opens_a_file_and_the_agent_cannot(suite):
    public, private = pair(suite)
    agent = StorageKeys([public], [])
    assert not agent.reads_its_own
    cipher, wrapped = agent.new_cipher(b"file")
    with pytest.raises(FileKeyError, match="it needs key owner, and no key is configured"):
        agent.open(wrapped, b"file", "a file")
    assert StorageKeys([], [private]).open(wrapped, b"file", "a file").key == cipher.key
    with pytest.raises(SealedDataError, match="changed"):
        StorageKeys([], [private]).open(wrapped, b"another", "a file")


def test_a_file_is_encrypted_for_a_local_key_and_a_recipient():
    public, private = pair(SealingSuite.X25519)
    local = LocalKey.new()
    keys = StorageKeys([local, public], [local])
    assert keys.reads_its_own
    cipher, wrapped = keys.new_cipher(b"file")
    assert key_ids(wrapped) == [local.key_id, "owner"]
    for reading in (local, private):
        assert StorageKeys([], [reading]).open(wrapped, b"file", "a file").key == cipher.key


def test_another_private_key_with_the_same_id_does_not_open_it():
    public, _ = pair(SealingSuite.X25519)
    _, other = pair(SealingSuite.X25519)
    _, wrapped = StorageKeys([public], []).new_cipher(b"file")
    with pytest.raises(SealedDataError, match="for another key with the same id"):
        StorageKeys([], [other]).open(wrapped, b"file", "a file")


def test_a_changed_slot_is_refused():
    public, private = pair(SealingSuite.X25519)
    _, wrapped = StorageKeys([public], []).new_cipher(b"file")
    (slot,) = decode_slots(wrapped, "")
    data = bytearray(base64.b64decode(slot["data"]))
    data[-1] ^= 1
    slot["data"] = base64.b64encode(data).decode()
    with pytest.raises(SealedDataError):
        StorageKeys([], [private]).open(encode_slots([slot]), b"file", "a file")
