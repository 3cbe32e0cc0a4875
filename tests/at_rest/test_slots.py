import orjson
import pytest

from otelwp_agent.at_rest.errors import SealedDataError
from otelwp_agent.at_rest.slots import decode_slots, encode_slots, key_ids

SLOTS = [{"kind": "local", "key": "a"}, {"kind": "hpke", "key": "b"}]


def test_slots_are_read_as_they_were_written():
    assert decode_slots(encode_slots(SLOTS), "a file") == SLOTS
    assert key_ids(encode_slots(SLOTS)) == ["a", "b"]


def test_a_later_version_is_refused_and_has_no_ids():
    later = orjson.dumps({"version": 2, "slots": SLOTS})
    with pytest.raises(SealedDataError, match="a file: its encrypted data key has version 2; a newer agent wrote it"):
        decode_slots(later, "a file")
    assert key_ids(later) == key_ids(b"no JSON") == []
