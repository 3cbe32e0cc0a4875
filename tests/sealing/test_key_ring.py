import pytest

from otelwp_agent.sealing.errors import SealedError
from otelwp_agent.sealing.key_ring import KeyRing, OpeningKey
from otelwp_agent.sealing.suites import BadKeyError, SealingSuite

OLD = OpeningKey("old", SealingSuite.X25519, SealingSuite.X25519.generate(), 0, 1000)
NEW = OpeningKey("new", SealingSuite.X25519, SealingSuite.X25519.generate(), 500)


def test_keys_are_found_by_id_within_their_time():
    ring = KeyRing([OLD, NEW])
    assert len(ring) == 2
    assert [*ring] == [OLD, NEW]
    assert ring.find("old", 999) is OLD
    assert ring.find("new", 1e12) is NEW
    assert ring.find("new", 200) is NEW, "the clock of a sender may be five minutes ahead"
    for key_id, now, text in (("old", 1000, "has ended"), ("new", 199, "not valid yet"), ("other", 600, "no key")):
        with pytest.raises(SealedError, match=text) as caught:
            ring.find(key_id, now)
        assert caught.value.reason == "unknown_key"
        assert "refresh the key set" in str(caught.value)


def test_bytes_that_are_no_key_are_refused():
    with pytest.raises(BadKeyError, match="32 bytes"):
        OpeningKey("bad", SealingSuite.X25519, b"short")
