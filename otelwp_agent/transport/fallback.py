"""Choose which of several endpoints gets the next request: the first one that works.

Endpoints are in order of preference. One that fails is left out for a while; after that, one request tries it again,
while all others go to the next endpoint. So requests return to the preferred endpoint when it works, and an endpoint
that does not work costs one request per period.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fallback:
    """State of `number` endpoints. Times are seconds on the caller's clock."""

    def __init__(self, number: int, retry_after: float) -> None:
        """Start with all endpoints working; one that fails is left out for `retry_after` seconds."""
        self._retry_after = retry_after
        self._out_until = [0.0] * number
        self.current = 0
        """Number of the endpoint that answered last."""

    def candidates(self, now: float) -> Iterator[int]:
        """Yield the endpoints to try for one request, in this order, until one answers.

        If none works, the one that may be tried again first is yielded. Call `answered` or `failed` for each.
        """
        any_works = False
        for number, until in enumerate(self._out_until):
            if until > now:
                continue
            if until:
                self._out_until[number] = now + self._retry_after  # only this request tries it
            any_works = True
            yield number
        if not any_works:
            yield min(range(len(self._out_until)), key=self._out_until.__getitem__)

    def answered(self, number: int) -> bool:
        """Record an answer of an endpoint, of whatever kind; return whether another one had answered last."""
        self._out_until[number] = 0.0
        changed, self.current = number != self.current, number
        return changed

    def failed(self, number: int, now: float) -> None:
        """Record that an endpoint gave no answer, or reported a failure of its own."""
        self._out_until[number] = now + self._retry_after

    def works(self, number: int, now: float) -> bool:
        """Return whether requests are sent to an endpoint."""
        return self._out_until[number] <= now
