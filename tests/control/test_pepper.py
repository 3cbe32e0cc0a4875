import stat

import pytest

from otelwp_agent.control import pepper
from otelwp_agent.control.errors import PepperError


def test_a_new_pepper_is_private_and_can_be_read(tmp_path):
    path = tmp_path / "new" / "pepper"
    secret = pepper.create(path)
    assert len(secret) == 32
    assert pepper.read(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert pepper.create(tmp_path / "other") != secret


def test_without_a_file_the_environment_is_used():
    assert pepper.read(None, {pepper.VARIABLE: "ab" * 32}) == b"\xab" * 32
    assert pepper.read(None, {}) is None


def test_a_missing_file_is_no_error(tmp_path):
    assert pepper.read(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"abc", b"ab" * 31, b"xy" * 32, b"\xff" * 64])
def test_an_invalid_pepper_is_refused_without_quoting_it(tmp_path, content):
    path = tmp_path / "pepper"
    path.write_bytes(content)
    with pytest.raises(PepperError, match=r"at least 64 hexadecimal digits.*Restore the file from a backup") as caught:
        pepper.read(path)
    assert "abab" not in str(caught.value)
    with pytest.raises(PepperError, match="environment variable OTELWP_CONTROL_PEPPER has no valid pepper"):
        pepper.read(None, {pepper.VARIABLE: content.decode("latin-1")})


def test_a_path_that_cannot_be_used(tmp_path):
    with pytest.raises(PepperError, match=r"cannot read the pepper .* Make it readable"):
        pepper.read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(PepperError, match=r"cannot create the pepper .* directory that can be written"):
        pepper.create(tmp_path / "file" / "pepper")
