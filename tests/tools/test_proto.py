import proto
import pytest


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "otelwp_agent"
    folder.mkdir()
    (folder / "thing.proto").write_text('syntax = "proto3"; package thing; message Thing { bytes body = 1; }')
    monkeypatch.setattr(proto, "ROOT", tmp_path)
    return folder


def test_what_was_compiled_is_not_stale(package, capsys):
    assert proto.main(check=False) == 0
    assert "class Thing" in (package / "thing_pb2.pyi").read_text()
    capsys.readouterr()
    assert proto.main(check=True) == 0
    assert capsys.readouterr().out == ""


def test_a_change_without_compiling_is_told(package, capsys):
    proto.main(check=False)
    (package / "thing.proto").write_text('syntax = "proto3"; package thing; message Other {}')
    assert proto.main(check=True) == 1
    assert "otelwp_agent/thing_pb2.py:1: differs from its .proto" in capsys.readouterr().out


def test_what_does_not_compile_is_named(package):
    (package / "thing.proto").write_text("message")
    with pytest.raises(SystemExit, match=r"thing\.proto: does not compile"):
        proto.main(check=True)
