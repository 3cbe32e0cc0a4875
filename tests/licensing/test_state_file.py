"""The state file keeps the renewal and the mark, for its owner only; a damaged one is refused."""

import stat

import pytest

from otelwp_agent.licensing.state_file import LicenseState, LicenseStateFile, install

STATE = LicenseState("a.b.c", 1000.5, 900.0)


def test_it_is_read_as_written_and_private(tmp_path):
    file = LicenseStateFile(str(tmp_path / "new" / "state.json"))
    assert file.read() == LicenseState()
    file.write(STATE, sync=True)
    assert file.read() == STATE
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_the_permissions_of_an_older_file_are_not_kept(tmp_path):
    file = LicenseStateFile(str(tmp_path / "state.json"))
    file.path.write_text("{}")
    file.path.chmod(0o644)
    file.write(STATE, sync=False)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_without_a_path_nothing_is_kept():
    file = LicenseStateFile(None)
    file.write(STATE, sync=True)
    assert file.read() == LicenseState()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "license": 5, "mark": 1, "refreshed": 1}',
        b'{"version": 1, "license": "", "mark": "1", "refreshed": 1}',
        b'{"version": 1, "license": "", "mark": true, "refreshed": 1}',
        b'{"version": 1, "license": "", "mark": -1, "refreshed": 1}',
        b'{"version": 1, "license": "", "mark": 1e300, "refreshed": 1}',
        b'{"version": 1, "license": "", "mark": 1}',
        b" " * 20_000,
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="will be replaced"):
        LicenseStateFile(str(path)).read()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        LicenseStateFile(str(tmp_path)).read()


def test_a_licence_is_installed_for_its_owner_only(tmp_path):
    path = tmp_path / "license.jwt"
    install(path, "a.b.c")
    assert path.read_text() == "a.b.c\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
