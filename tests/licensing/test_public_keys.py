"""Public keys are texts or files of texts; their ids are thumbprints."""

import os

import pytest

from otelwp_agent.licensing.public_keys import BUNDLED, MAX_KEYS, check_key, key_id, load_keys
from otelwp_agent.licensing.signatures import generate_key, public_text
from tests.licensing.issuer import ISSUER, Issuer


def test_the_id_is_the_thumbprint_of_rfc_8037():
    """RFC 8037, A.2 and A.3: this key and its thumbprint."""
    key = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    assert key_id(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert check_key(key) == key


def test_keys_are_given_as_texts_and_in_files(tmp_path):
    others = [Issuer().public, Issuer().public]
    file = tmp_path / "keys.txt"
    file.write_text(f"# ours\n{others[0]}\n\n  {others[1]}\n")
    assert set(load_keys([ISSUER.public, str(file)]).values()) == {ISSUER.public, *others, *BUNDLED}
    assert load_keys([], bundled=[ISSUER.public]) == ISSUER.keys


def test_if_a_licence_is_required_only_the_keys_of_the_vendor_count():
    other = Issuer().public
    assert load_keys([other], [ISSUER.public], required=True) == ISSUER.keys
    assert set(load_keys([other], [], required=True).values()) == {other}
    assert set(load_keys([other], [ISSUER.public]).values()) == {ISSUER.public, other}


@pytest.mark.parametrize("text", ["", "x", ISSUER.public[:-1], ISSUER.public + "A", ISSUER.public[:-1] + "=", "é" * 43])
def test_other_texts_are_refused(text, tmp_path):
    with pytest.raises(ValueError, match="is not a public key"):
        check_key(text)
    file = tmp_path / "keys"
    file.write_text(f"{text or '?'}\n")
    with pytest.raises(ValueError, match="is not a public key"):
        load_keys([str(file)])


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        load_keys([str(tmp_path / "none")])
    large = tmp_path / "large"
    large.write_bytes(b"#" * 20_000)
    with pytest.raises(ValueError, match="larger than"):
        load_keys([str(large)])
    with pytest.raises(ValueError, match="directory"):
        load_keys([os.fspath(tmp_path)])


def test_too_many_keys_are_refused(tmp_path):
    file = tmp_path / "keys"
    file.write_text("".join(f"{public_text(generate_key())}\n" for _ in range(MAX_KEYS + 1)))
    with pytest.raises(ValueError, match="too many"):
        load_keys([str(file)])
