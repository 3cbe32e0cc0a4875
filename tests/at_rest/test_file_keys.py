import pytest

from otelwp_agent.at_rest.errors import FileKeyError
from otelwp_agent.at_rest.file_keys import open_file_key
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.at_rest.slots import encode_slots
from tests.kit.storage_keys import storage_keys

SLOTS = [{"kind": "local", "key": "a"}, {"kind": "hpke", "key": "b"}]


def test_without_keys_the_error_names_those_that_open_the_file():
    with pytest.raises(FileKeyError, match="it needs one of the keys a, b, and no key is configured"):
        open_file_key(None, encode_slots(SLOTS), b"", "a file")


def test_with_keys_it_returns_the_cipher():
    keys = storage_keys(LocalKey.new())
    cipher, wrapped = keys.new_cipher(b"x")
    assert open_file_key(keys, wrapped, b"x", "a file").key == cipher.key
