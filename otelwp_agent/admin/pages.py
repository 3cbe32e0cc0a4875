"""Pages of lists: cursors, and the link to the next page."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otelwp_agent.admin.models import PageQuery

T = TypeVar("T")


class ItemPage(NamedTuple):
    """A page of a list as a handler returns it: the items as JSON, and the cursor of the next page or `None`."""

    items: Sequence[object]
    cursor: str | None

    def next_url(self, path: str, query: PageQuery) -> str | None:
        """Return the URL of the next page, or `None` on the last one."""
        if self.cursor is None:
            return None
        parameters = {**query.model_dump(exclude_none=True, mode="json"), "cursor": self.cursor}
        return f"{path}?{urlencode(parameters)}"


def paged(
    query: PageQuery,
    read: Callable[[str, int], Sequence[T]],
    key: Callable[[T], str],
    to_json: Callable[[T], object],
) -> ItemPage:
    """Return the page that `query` asks for.

    `read(after, limit)` returns items with keys after `after`, which is "" at the beginning.
    """
    found = read(decode(query.cursor), query.limit + 1)
    page = found[: query.limit]
    return ItemPage([to_json(each) for each in page], encode(key(page[-1])) if len(found) > len(page) else None)


def encode(key: str) -> str:
    """Return the cursor after the item with this key, which is printable ASCII: the key in hexadecimal digits."""
    return key.encode("ascii").hex()


def decode(cursor: str | None) -> str:
    """Return the key in a cursor, whose form the query's model has checked; "" without one."""
    return "" if cursor is None else bytes.fromhex(cursor).decode("ascii")
