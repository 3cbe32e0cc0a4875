import shutil
import sysconfig

import native
import pytest

C = 'int narrow(long number);\nint narrow(long number) { return "a"[0] + (int)number; }\n'


@pytest.fixture
def compiler():
    """Skip where nothing is compiled."""
    try:
        return native.compiler(), native.includes()
    except native.SkippedError as error:
        pytest.skip(str(error))


@pytest.fixture
def sanitizer(compiler):
    try:
        return native._runtime()
    except native.SkippedError as error:
        pytest.skip(str(error))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with the extension module's sources, to change."""
    shutil.copytree(native.ROOT / native.SOURCES, tmp_path / native.SOURCES)
    (tmp_path / "benchmarks").symlink_to(native.ROOT / "benchmarks")
    monkeypatch.setattr(native, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_extension_module_has_no_warnings(compiler, capfd):
    assert native.main([]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_warning_is_an_error(compiler, root, capfd):
    source = root / native.SOURCES / "more.c"
    source.write_text(C)
    assert native.main([]) == 0
    source.write_text(C.replace("(int)", ""))
    assert native.main([]) != 0
    assert "more.c:2" in capfd.readouterr().err


def test_without_a_compiler_it_is_skipped(monkeypatch, capfd):
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    for arguments in ([], ["--fuzz"]):
        assert native.main(arguments) == 0
        assert capfd.readouterr().out == "otelwp_agent/model/native: skipped, there is no C compiler\n"


def test_the_compiler_that_is_named_is_taken(monkeypatch):
    monkeypatch.setenv("CC", "env cc -m64")
    assert native.compiler() == ["env", "cc", "-m64"]


def test_without_headers_it_is_skipped(compiler, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert native.main([]) == 0
    assert "Python's headers are not installed" in capfd.readouterr().out


def test_without_a_sanitizer_it_is_skipped(compiler, monkeypatch, capfd):
    monkeypatch.setenv("CC", "echo")  # which answers with what it was asked for, as compilers do that have none
    assert native.main(["--fuzz"]) == 0
    assert "no AddressSanitizer" in capfd.readouterr().out


def test_under_sanitizers_nothing_is_found(sanitizer, root, capfd):
    assert native.main(["--fuzz", "--seconds", "0.2"]) == 0
    assert "no problem found" in capfd.readouterr().out
    assert not (root / "fuzz-traces.bin").exists()


def test_under_sanitizers_a_read_beyond_the_end_is_found(sanitizer, root, capfd):
    header = root / native.SOURCES / "wire.h"
    text = header.read_text()
    assert "shift < 70 && at < end" in text
    header.write_text(text.replace("shift < 70 && at < end", "shift < 70"))
    (root / "cut.bin").write_bytes(b"\x0a")
    assert native.main(["--fuzz", "cut.bin"]) != 0
    assert "heap-buffer-overflow" in capfd.readouterr().err
    assert (root / "fuzz-traces.bin").read_bytes() == b"\x0a"
