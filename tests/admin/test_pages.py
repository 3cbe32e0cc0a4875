import pytest
from hypothesis import given
from hypothesis import strategies as st

from otelwp_agent.admin.models import PageQuery
from otelwp_agent.admin.pages import ItemPage, decode, encode, paged
from otelwp_agent.admin.problems import ProblemError

ITEMS = [f"t{number:03}" for number in range(7)]


def page(limit, cursor=None, items=ITEMS):
    query = PageQuery(limit=limit, cursor=cursor)
    return paged(query, lambda after, count: [each for each in items if each > after][:count], str, str)


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
def test_all_pages_together_are_the_list(limit):
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        items, cursor = page(limit, cursor)
        assert len(items) <= limit
        found += items
        pages += 1
    assert found == ITEMS
    assert pages == -(-len(ITEMS) // limit)


def test_an_empty_list_has_one_page():
    assert page(5, items=[]) == ItemPage([], None)


def test_the_next_url_keeps_the_filters():
    query = PageQuery(limit=2)
    assert ItemPage(["a"], "YQ").next_url("/x", query) == "/x?limit=2&cursor=YQ"
    assert ItemPage(["a"], None).next_url("/x", query) is None


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=200))
def test_cursors_come_back(key):
    assert decode(encode(key)) == key


@pytest.mark.parametrize("cursor", ["a", "____", "AAA", "A=B=", "!"])
def test_an_invented_cursor_is_refused(cursor):
    with pytest.raises(ProblemError) as caught:
        decode(cursor)
    assert caught.value.status == 422
    assert caught.value.errors[0].parameter == "cursor"
