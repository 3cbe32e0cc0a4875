import json

import pytest

from otelwp_agent.traces.usage import CORE, MOST_ROWS, OwnerUsage, add_rest_to_core, usage_of_rows


def row(**figures):
    return json.dumps({"kind": "plugin", "name": "shop", **figures})


def test_profiled_time_includes_queries_already():
    figures = row(load_ms=1, self_ms=20, sql_ms=15, http_ms=2, queries=3, errors=1)
    assert usage_of_rows([figures], profiled=True)["shop"].us == 21_000
    lower = usage_of_rows([figures], profiled=False)["shop"]
    assert (lower.us, lower.queries, lower.errors) == (18_000, 3, 1)


def test_the_table_of_a_profiled_page_sums_up_to_its_time():
    usage = usage_of_rows([row(self_ms=30), '{"kind": "core", "self_ms": 10, "queries": 4}'], profiled=True)
    found = add_rest_to_core(usage, 100_000)
    assert sum(used.us for used in found.values()) == 100_000
    assert (found["shop"].us, found[CORE].us, found[CORE].queries) == (30_000, 70_000, 4)


def test_more_than_the_time_of_a_page_leaves_no_rest():
    assert add_rest_to_core({"shop": OwnerUsage(us=9)}, 5)[CORE].us == 0


def test_core_and_others_have_no_name():
    rows = ['{"kind": "core", "sql_ms": 1}', '{"kind": "other", "sql_ms": 2}', '{"kind": "theme", "sql_ms": 2}']
    assert set(usage_of_rows(rows, profiled=False)) == {"core", "other"}


def test_the_slowest_call_is_named():
    found = usage_of_rows(
        [row(slowest_ms=3, slowest_hook="the_content", slowest_function="shop_related")], profiled=True
    )
    assert found["shop"].slowest == "shop_related in the_content"


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"kind": 7}', '{"kind": "plugin", "name": ["x"]}', '{"kind": "plugin", "name": ""}']
)
def test_invalid_rows_are_ignored(text):
    assert usage_of_rows([text], profiled=True) == {}


@pytest.mark.parametrize("value", [-5, 1e300, True, "9", None, [1]])
def test_invalid_figures_count_as_zero(value):
    assert usage_of_rows([row(self_ms=value, queries=value)], profiled=True)["shop"].us == 0


def test_rows_are_bounded():
    rows = [json.dumps({"kind": "plugin", "name": f"p{number}"}) for number in range(10 * MOST_ROWS)]
    assert len(usage_of_rows(rows, profiled=True)) == MOST_ROWS
