import mirror
import pytest

from otelwp_agent.component import Kind


@pytest.fixture
def house(tmp_path):
    """A house with one processor, `batch`, in which all four names are equal."""
    for path in (
        "otelwp_agent/processors/__init__.py",
        "otelwp_agent/processors/batch.py",
        "docs/components/processors/batch.md",
        "tests/processors/test_batch.py",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    return tmp_path


def check(house, monkeypatch, types=("batch",)):
    monkeypatch.setattr(mirror, "SHIPPED", {kind: types if kind is Kind.PROCESSOR else () for kind in Kind})
    monkeypatch.setattr(mirror, "NO_TEST_FILE", {})
    monkeypatch.setattr(mirror, "NO_MODULE", {})
    return mirror.problems(house)


def test_equal_names_are_no_problem(house, monkeypatch):
    assert check(house, monkeypatch) == []


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("docs/components/processors/batch.md", "has no page docs/components/processors/batch.md"),
        ("tests/processors/test_batch.py", "has no test file tests/processors/test_batch.py"),
        ("otelwp_agent/processors/batch.py", "processor batch has no otelwp_agent/processors/batch.py"),
    ],
)
def test_a_missing_one_is_named(house, monkeypatch, missing, told):
    (house / missing).unlink()
    assert any(told in problem for problem in check(house, monkeypatch))


def test_a_component_that_is_not_listed_is_named(house, monkeypatch):
    found = check(house, monkeypatch, types=())
    assert any("batch.py:1: is not a processor" in problem for problem in found)
    assert any("batch.md:1: there is no processor batch" in problem for problem in found)


def test_a_test_of_nothing_is_named(house, monkeypatch):
    (house / "tests/processors/test_gone.py").write_text("")
    assert check(house, monkeypatch) == [
        "tests/processors/test_gone.py:1: tests no module: there is no file at the mirrored path"
    ]


def test_a_module_may_have_a_test_file_for_each_subject(house, monkeypatch):
    (house / "tests/processors/test_batch_timer.py").write_text("")
    assert check(house, monkeypatch) == []
    (house / "tests/processors/test_batch_timer.py").rename(house / "tests/test_batch_timer.py")
    (house / "tests/processors/test_batches.py").write_text("")
    (house / "tests/processors/test_batch.py").unlink()
    assert check(house, monkeypatch) == [
        "otelwp_agent/processors/batch.py:1: has no test file tests/processors/test_batch.py",
        "tests/processors/test_batches.py:1: tests no module: there is no file at the mirrored path",
        "tests/test_batch_timer.py:1: tests no module: there is no file at the mirrored path",
    ]


def test_a_component_may_be_a_folder(house, monkeypatch):
    folder = house / "otelwp_agent/processors/batch"
    (house / "otelwp_agent/processors/batch.py").unlink()
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "timer.py").write_text("")
    assert check(house, monkeypatch) == []
    (house / "tests/processors/test_batch.py").rename(house / "tests/processors/test_timer.py")
    assert check(house, monkeypatch) == [
        "otelwp_agent/processors/batch/timer.py:1: has no test file tests/processors/test_batch.py",
        "tests/processors/test_timer.py:1: tests no module: there is no file at the mirrored path",
    ]


def test_tools_have_tests_too(house, monkeypatch):
    (house / "tools").mkdir()
    (house / "tools/saw.py").write_text("")
    assert check(house, monkeypatch) == ["tools/saw.py:1: has no test file tests/tools/test_saw.py"]
