import builtins
import sys

import pytest

from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.at_rest.loading import load_keys, reading_keys
from otelwp_agent.config.storage_encryption import StorageEncryption
from otelwp_agent.errors import StartError
from otelwp_agent.licensing.public_keys import encode_base64url
from otelwp_agent.licensing.signatures import generate_key, public_text
from otelwp_agent.sealing.key_files import opening_keys_text
from otelwp_agent.sealing.key_ring import OpeningKey
from otelwp_agent.sealing.key_set import SealingKeySet, sign_key_set
from otelwp_agent.sealing.recipient import Recipient
from otelwp_agent.sealing.suites import SealingSuite

WHERE = "service.journal.encryption"


@pytest.fixture
def key_file(tmp_path):
    key = LocalKey.new()
    path = tmp_path / "key"
    path.write_text(f"{key.text}\n")
    return key, str(path)


def test_a_key_comes_from_a_file_or_from_the_configuration(key_file):
    key, path = key_file
    assert load_keys(None, WHERE) is None
    assert load_keys(StorageEncryption(key_file=path), WHERE).ids == [key.key_id]
    other = LocalKey.new()
    keys = load_keys(StorageEncryption(key=other.text, previous_key_files=[path]), WHERE)
    assert keys.ids == [other.key_id, key.key_id]


@pytest.mark.parametrize("setting", ["key_file", "previous_key_files"])
def test_a_missing_key_file_is_an_error_that_names_the_setting(tmp_path, setting):
    missing = str(tmp_path / "none")
    values = {"key_file": missing} if setting == "key_file" else {"key": "A" * 43 + "=", setting: [missing]}
    with pytest.raises(StartError) as error:
        load_keys(StorageEncryption(**values), WHERE)
    assert str(error.value) == f"{WHERE}.{setting}: cannot read the key file {missing}: No such file or directory"


def test_a_file_without_a_key_is_an_error_that_does_not_show_it(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"not a key \xff" * 1000)
    with pytest.raises(
        StartError, match=r"key_file: .*key: this is not a key of 32 bytes.*journal new-key FILE"
    ) as error:
        load_keys(StorageEncryption(key_file=str(path)), WHERE)
    assert "not a key \\" not in str(error.value)


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, key_file):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("cryptography"):
            raise ModuleNotFoundError("no", name="cryptography")
        return real(name, *arguments, **options)

    for name in [name for name in sys.modules if name.startswith(("cryptography", "otelwp_agent.at_rest"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(StartError, match=r"cryptography is not installed: .*otelwp-agent\[sealing\]"):
        load_keys(StorageEncryption(key_file=key_file[1]), WHERE)


@pytest.fixture
def owner(tmp_path):
    """Return the settings of a recipient, and the path of the file with its private key."""
    suite = SealingSuite.X25519
    private = suite.generate()
    path = tmp_path / "opening-keys.json"
    path.write_bytes(opening_keys_text(1, [OpeningKey("owner", suite, private)]))
    return {"keys": [{"key_id": "owner", "public_key": encode_base64url(suite.public_bytes(private))}]}, str(path)


def test_recipients_write_and_their_private_keys_read(owner, key_file):
    recipients, path = owner
    keys = load_keys(StorageEncryption(recipients=recipients), WHERE)
    assert (keys.writing_ids, keys.ids, keys.reads_its_own) == (["owner"], [], False)
    keys = load_keys(StorageEncryption(recipients=recipients, opening_keys_file=path), WHERE, own=True)
    assert (keys.writing_ids, keys.ids) == (["owner"], ["owner"])
    keys = load_keys(StorageEncryption(recipients=recipients, key_file=key_file[1]), WHERE, own=True)
    assert (keys.writing_ids, keys.ids) == ([key_file[0].key_id, "owner"], [key_file[0].key_id])


def test_private_keys_of_another_recipient_are_an_error_where_the_agent_must_read(owner, tmp_path):
    recipients, path = owner
    recipients["keys"][0]["key_id"] = "another"
    settings = StorageEncryption(recipients=recipients, opening_keys_file=path)
    assert load_keys(settings, WHERE).ids == ["owner"]
    with pytest.raises(StartError, match=r"encrypted for key another, which is not in .*opening-keys\.json"):
        load_keys(settings, WHERE, own=True)


@pytest.mark.parametrize("content", [None, b"{}", b"no JSON"])
def test_a_file_without_private_keys_is_an_error(owner, content, tmp_path):
    recipients, _ = owner
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=r"encryption\.opening_keys_file: .*bad\.json: "):
        load_keys(StorageEncryption(recipients=recipients, opening_keys_file=str(path)), WHERE)


def test_a_signed_key_set_names_the_recipient_and_an_invalid_one_is_an_error(tmp_path):
    suite, signer = SealingSuite.X25519, generate_key()
    recipient = Recipient("from the set", suite, suite.public_bytes(suite.generate()))
    path = tmp_path / "key-set.jws"
    path.write_text(sign_key_set(SealingKeySet(1, 1, [recipient]), signer))
    settings = {"file": str(path), "public_keys": [public_text(signer)]}
    assert load_keys(StorageEncryption(recipients=settings), WHERE).writing_ids == ["from the set"]
    settings["public_keys"] = [public_text(generate_key())]
    with pytest.raises(StartError, match=r"encryption\.recipients: .*key-set\.jws: it is signed with key"):
        load_keys(StorageEncryption(recipients=settings), WHERE)
    path.write_text(sign_key_set(SealingKeySet(1, 1, []), signer))
    with pytest.raises(StartError, match="no key is valid now"):
        load_keys(StorageEncryption(recipients={**settings, "public_keys": [public_text(signer)]}), WHERE)


def test_a_command_reads_with_the_keys_of_its_options_and_of_the_configuration(owner, key_file):
    key, path = key_file
    other = LocalKey.new()
    assert reading_keys([], None, WHERE) is None
    assert reading_keys([path, owner[1]], None, WHERE).ids == [key.key_id, "owner"]
    assert reading_keys([path], StorageEncryption(key=other.text), WHERE).ids == [key.key_id, other.key_id]
    with pytest.raises(StartError, match="--key-file: cannot read the key file"):
        reading_keys(["none"], None, WHERE)
