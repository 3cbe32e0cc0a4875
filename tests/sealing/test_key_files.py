import json

import pytest

from otelwp_agent.sealing.key_files import load_text, opening_keys_text, read_key_ring, read_opening_keys
from otelwp_agent.sealing.key_ring import OpeningKey
from otelwp_agent.sealing.suites import SealingSuite

KEYS = [
    OpeningKey("old", SealingSuite.X25519, SealingSuite.X25519.generate(), 10.0, 20.0),
    OpeningKey("new", SealingSuite.MLKEM768_X25519, SealingSuite.MLKEM768_X25519.generate(), 15.0),
]
TEXT = opening_keys_text(3, KEYS).decode()


def test_keys_are_written_and_read():
    assert read_opening_keys(TEXT) == (3, KEYS)
    assert [*read_key_ring(TEXT)] == KEYS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda data: data.update(keys=[{}]), "keys.0.key_id"),
        (lambda data: data.update(version=0), "version"),
        (lambda data: data.update(more=1), "more"),
        (lambda data: data["keys"][0].update(suite="X448"), "unknown suite 'X448'"),
        (lambda data: data["keys"][0].update(private_key="c2VjcmV0"), "has 32 bytes, this has 6"),
        (lambda data: data["keys"][0].update(private_key="!secret!"), "not base64url"),
        (lambda data: data["keys"][0].update(key_id="new"), "two keys"),
        (lambda data: data["keys"][0].update(not_before="soon"), "not_before"),
    ],
)
def test_what_is_wrong_is_named_without_the_key(change, problem):
    data = json.loads(TEXT)
    change(data)
    with pytest.raises(ValueError, match=problem) as caught:
        read_opening_keys(json.dumps(data))
    assert "secret" not in str(caught.value)
    assert data["keys"][-1].get("private_key", "-") not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\ufffd", '{"version": 1}'])
def test_other_files_are_refused(text):
    with pytest.raises(ValueError, match=r"is not JSON|invalid member"):
        read_key_ring(text)


def test_files_are_read_up_to_a_limit(tmp_path):
    path = tmp_path / "keys"
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_text(path)
    path.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(ValueError, match="larger than"):
        load_text(path)
    path.write_text("text")
    assert load_text(path) == "text"
