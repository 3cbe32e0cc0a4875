import pytest

from otelwp_agent.errors import StartError
from otelwp_agent.model.batch import Batch, Origin
from otelwp_agent.model.signal import Signal
from otelwp_agent.sealing.message_ids import KEY_BYTES, MessageIds, read_or_create_key


def a_batch(body=b"body", signal=Signal.TRACES, encodings=()):
    return Batch(signal, body, 1, Origin(), (), encodings)


def test_ids_are_random_without_a_key():
    ids = {MessageIds().of(a_batch(), "acme") for _ in range(10)}
    assert len(ids) == 10
    assert {len(each) for each in ids} == {16}


def test_with_a_key_the_same_content_has_the_same_id():
    key = b"k" * KEY_BYTES
    id_ = MessageIds(key).of(a_batch(), "acme")
    assert id_ == MessageIds(key).of(a_batch(), "acme")
    others = [
        MessageIds(key).of(a_batch(b"other"), "acme"),
        MessageIds(key).of(a_batch(signal=Signal.LOGS), "acme"),
        MessageIds(key).of(a_batch(encodings=("zstd",)), "acme"),
        MessageIds(key).of(a_batch(), "globex"),
        MessageIds(b"o" * KEY_BYTES).of(a_batch(), "acme"),
    ]
    assert len({id_, *others}) == 6


def test_the_key_is_created_once_and_kept(tmp_path):
    path = tmp_path / "state" / "message-id.key"
    key = read_or_create_key(path, "x")
    assert key == read_or_create_key(path, "x")
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(StartError, match="5 bytes"):
        read_or_create_key(path, "x")
    with pytest.raises(StartError, match="cannot use"):
        read_or_create_key(path / "below", "x")
