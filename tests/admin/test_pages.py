import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from otelwp_agent.admin.models import PageQuery
from otelwp_agent.admin.pages import ItemPage, decode, encode, paged

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
    assert ItemPage(["a"], "61").next_url("/x", query) == "/x?limit=2&cursor=61"
    assert ItemPage(["a"], None).next_url("/x", query) is None


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=200))
def test_cursors_come_back(key):
    assert decode(PageQuery(cursor=encode(key)).cursor) == key


def test_without_a_cursor_a_list_begins():
    assert decode(None) == ""


@pytest.mark.parametrize("cursor", ["", "a", "6", "7f", "1f", "6A", "g0", "61" * 201])
def test_an_invented_cursor_is_refused(cursor):
    with pytest.raises(ValidationError):
        PageQuery(cursor=cursor)
