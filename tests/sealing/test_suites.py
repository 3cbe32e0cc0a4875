import pytest

from otelwp_agent.sealing.suites import BadKeyError, NotDecryptedError, SealingSuite


@pytest.mark.parametrize(
    ("suite", "overhead", "public"), [(SealingSuite.X25519, 48, 32), (SealingSuite.MLKEM768_X25519, 1136, 1216)]
)
def test_what_is_encrypted_is_decrypted(suite, overhead, public):
    private = suite.generate()
    raw = suite.public_bytes(private)
    assert len(raw) == public
    sealed = suite.encrypt(suite.public_key(raw), b"spans", b"info")
    assert len(sealed) == len(b"spans") + overhead == len(b"spans") + suite.overhead
    assert suite.decrypt(suite.private_key(private), sealed, b"info") == b"spans"
    for wrong in (sealed[:-1], sealed + b"x", sealed[:10], b"", bytes(len(sealed))):
        with pytest.raises(NotDecryptedError):
            suite.decrypt(suite.private_key(private), wrong, b"info")
    with pytest.raises(NotDecryptedError):
        suite.decrypt(suite.private_key(private), sealed, b"other")
    with pytest.raises(NotDecryptedError):
        suite.decrypt(suite.private_key(suite.generate()), sealed, b"info")


@pytest.mark.parametrize("suite", SealingSuite)
def test_bytes_that_are_no_key_are_refused(suite):
    for raw in (b"", b"short", bytes(31), bytes(33), bytes(5000)):
        with pytest.raises(BadKeyError):
            suite.private_key(raw)
        with pytest.raises(BadKeyError):
            suite.public_bytes(raw)
        with pytest.raises(BadKeyError):
            suite.public_key(raw)


@pytest.mark.parametrize("suite", SealingSuite)
def test_a_public_key_without_security_is_refused(suite):
    raw = bytearray(suite.public_bytes(suite.generate()))
    raw[-32:] = bytes(32)  # a point of small order, which gives a known secret
    with pytest.raises(BadKeyError):
        suite.public_key(bytes(raw))


def test_ml_kem_keys_out_of_range_are_refused():
    raw = b"\xff" * 1184 + SealingSuite.X25519.public_bytes(SealingSuite.X25519.generate())
    with pytest.raises(BadKeyError):
        SealingSuite.MLKEM768_X25519.public_key(raw)


def test_the_seed_of_a_hybrid_key_is_expanded_as_in_x_wing():
    # The first test vector of draft-connolly-cfrg-xwing-kem, appendix C.
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    assert SealingSuite.MLKEM768_X25519.public_bytes(seed).hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced884")
