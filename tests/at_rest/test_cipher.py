import pytest

from otelwp_agent.at_rest.cipher import KEY_BYTES, TAG_BYTES, FileCipher


def test_a_part_is_read_with_its_offset_and_header_only():
    cipher = FileCipher.new()
    sealed = cipher.encrypt(40, b"plain", b"head")
    assert len(sealed) == len(b"plain") + TAG_BYTES == len(b"plain") + cipher.overhead
    again = FileCipher(cipher.key)
    assert again.decrypt(40, sealed, b"head") == b"plain"
    assert again.decrypt(41, sealed, b"head") is None
    assert again.decrypt(40, sealed, b"heap") is None
    assert again.decrypt(40, sealed[:-1], b"head") is None
    assert FileCipher.new().decrypt(40, sealed, b"head") is None
    assert len(cipher.key) == KEY_BYTES


def test_an_offset_is_encrypted_once():
    cipher = FileCipher.new()
    cipher.encrypt(10, b"a", b"")
    for offset in (0, 9, 10):
        assert not cipher.may_encrypt(offset)
        with pytest.raises(ValueError, match=f"offset {offset} of this file has been encrypted before"):
            cipher.encrypt(offset, b"b", b"")
    assert cipher.may_encrypt(11)
    cipher.encrypt(11, b"b", b"")


def test_a_cipher_of_a_file_from_before_does_not_encrypt():
    cipher = FileCipher(FileCipher.new().key)
    assert not cipher.may_encrypt(2**40)
    with pytest.raises(ValueError, match="encrypted before"):
        cipher.encrypt(2**40, b"", b"")


def test_each_new_cipher_has_a_key_of_its_own():
    assert FileCipher.new().key != FileCipher.new().key
