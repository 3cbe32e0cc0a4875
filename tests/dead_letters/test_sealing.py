from dataclasses import replace

import pytest

from otelwp_agent.at_rest.errors import FileKeyError, SealedDataError
from otelwp_agent.at_rest.keys import LocalKey
from otelwp_agent.dead_letters.records import Letter
from otelwp_agent.dead_letters.sealing import LetterOpener, LetterSealer
from otelwp_agent.model.signal import Signal
from tests.kit.storage_keys import storage_keys

KEYS = storage_keys(LocalKey.new())
LETTER = Letter("1", 1.5, "sink", Signal.LOGS, 3, 4, "malformed", "span 3: é", "otlp", "http", "shop", ("zstd",))


def test_a_letter_opens_as_it_was():
    sealer = LetterSealer(KEYS)
    sealed, body = sealer.seal(LETTER, b"body")
    assert (sealed.sealed, sealed.stored, len(body)) == ((sealer.key, 0), len(body), sealed.stored)
    opened, plain = LetterOpener({sealer.key: sealer.wrapped}, KEYS).open(sealed, body)
    assert (opened, plain) == (replace(LETTER, sealed=sealed.sealed, stored=sealed.stored), b"body")
    assert sealer.seal(LETTER, b"body")[0].sealed == (sealer.key, 1)
    assert sealer.seal(LETTER, b"body")[1] != body


def test_a_letter_that_is_not_encrypted_needs_no_key():
    assert LetterOpener({}, None).open(LETTER, b"body") == (LETTER, b"body")


@pytest.mark.parametrize(
    "change",
    [
        {"id": "2"}, {"time": 2.0}, {"exporter": "x"}, {"signal": Signal.TRACES}, {"items": 4}, {"size": 5},
        {"reason": "x"}, {"receiver": "x"}, {"transport": "x"}, {"tenant": "x"}, {"encodings": ()},
    ],
)  # fmt: skip
def test_every_field_in_clear_is_authenticated(change):
    sealer = LetterSealer(KEYS)
    sealed, body = sealer.seal(LETTER, b"body")
    with pytest.raises(SealedDataError, match=r"letter \d was changed after it was written; purge it"):
        LetterOpener({sealer.key: sealer.wrapped}, KEYS).open(replace(sealed, **change), body)


def test_a_missing_key_and_a_damaged_data_key_are_told_apart():
    sealer = LetterSealer(KEYS)
    sealed, body = sealer.seal(LETTER, b"body")
    with pytest.raises(FileKeyError, match="letter 1 is encrypted; it needs key"):
        LetterOpener({sealer.key: sealer.wrapped}, None).open(sealed, body)
    with pytest.raises(SealedDataError, match="letter 1 cannot be opened: its data key is damaged"):
        LetterOpener({}, KEYS).open(sealed, body)
