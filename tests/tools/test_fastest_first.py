import gc
import json
from types import SimpleNamespace

import fastest_first
import pytest


def order(names):
    items = [SimpleNamespace(nodeid=name) for name in names]
    fastest_first.pytest_collection_modifyitems(items)
    return [item.nodeid for item in items]


def test_tests_run_in_the_order_of_their_durations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fastest_first.RECORDED.write_text(json.dumps({"duration_by_test": {"slow": 3.0, "fast": 0.1, "middle": 1.0}}))
    assert order(["slow", "middle", "new", "fast"]) == ["new", "fast", "middle", "slow"]


def test_without_recorded_durations_the_order_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert order(["b", "a"]) == ["b", "a"]


@pytest.mark.parametrize("only", [True, False])
def test_what_exists_after_a_collection_alone_is_excluded_from_garbage_collection(only):
    before = gc.get_freeze_count()
    session = SimpleNamespace(config=SimpleNamespace(option=SimpleNamespace(collectonly=only)))
    try:
        fastest_first.pytest_collection_finish(session)
        assert (gc.get_freeze_count() > before) is only
    finally:
        gc.unfreeze()
