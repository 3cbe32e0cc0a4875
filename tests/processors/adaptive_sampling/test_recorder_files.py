import pytest

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.processors.adaptive_sampling.recorder_files import decode_recording, encode_recording
from tests.kit.storage_keys import storage_keys

HEAD = {"begin": 1.0, "entries": [[3, "otlp", "the-tenant"]]}


def test_a_file_in_clear_is_a_line_of_json_and_the_content():
    content, cipher = encode_recording(HEAD, b"a\nb", None)
    assert content == b'{"begin": 1.0, "entries": [[3, "otlp", "the-tenant"]]}\na\nb'
    assert cipher is None
    assert decode_recording(content, None, "a file") == (HEAD, b"a\nb", None)


def test_an_encrypted_file_is_opened_with_its_key_only():
    keys = storage_keys(LocalKey.new())
    content, cipher = encode_recording(HEAD, b"the content", keys)
    assert b"the-tenant" not in content
    assert b"the content" not in content
    assert decode_recording(content, keys, "a file")[:2] == (HEAD, b"the content")
    assert decode_recording(content, None, "a file", cipher)[:2] == (HEAD, b"the content")
    for other in (None, storage_keys(LocalKey.new())):
        with pytest.raises(FileKeyError, match="a file is encrypted; it needs key"):
            decode_recording(content, other, "a file")


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_changed_byte_is_noticed(place):
    keys = storage_keys(LocalKey.new())
    content = bytearray(encode_recording(HEAD, b"the content", keys)[0])
    content[place] ^= 1
    with pytest.raises((SealedDataError, FileKeyError, ValueError)):
        decode_recording(bytes(content), keys, "a file")


def test_a_file_that_is_cut_is_noticed():
    keys = storage_keys(LocalKey.new())
    content = encode_recording(HEAD, b"the content", keys)[0]
    for size in (5, len(content) - 1, content.index(b"\n")):
        with pytest.raises((SealedDataError, ValueError)):
            decode_recording(content[:size], keys, "a file")
