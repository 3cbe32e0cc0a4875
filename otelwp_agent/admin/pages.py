"""Pages of lists: cursors, and the link to the next page."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlencode

from otelwp_agent.admin.problems import InvalidValue, ProblemError

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
    """Return the cursor after the item with this key. Clients must not depend on its form."""
    return base64.urlsafe_b64encode(key.encode()).rstrip(b"=").decode()


def decode(cursor: str | None) -> str:
    """Return the key in a cursor, "" without one; raise `ProblemError`."""
    if cursor is None:
        return ""
    try:
        key = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        if key.isprintable():
            return key
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise invalid_cursor()


def invalid_cursor() -> ProblemError:
    """Return the problem for a cursor that this API has not created."""
    detail = "this is not a cursor: use `next` of the page before"
    return ProblemError(422, detail, errors=[InvalidValue(parameter="cursor", detail=detail)])
