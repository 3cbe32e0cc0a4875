import builtins
import sys

import pytest

from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.at_rest.loading import load_keys
from otelwp_agent.config.blocks import StorageEncryption
from otelwp_agent.errors import StartError

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
