"""Wait for PostgreSQL's notifications of changes (LISTEN), on a connection of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psycopg

from otelwp_agent.control.mutation import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Callable

    import structlog
    from sqlalchemy import URL

FIRST_WAIT = 0.25
LONGEST_WAIT = 5.0
"""Seconds before a lost connection is made again: the first wait, which doubles after each failure."""

_KEEPALIVE = {"keepalives_idle": "5", "keepalives_interval": "2", "keepalives_count": "3", "connect_timeout": "5"}
"""Detect within about 10 s that a server no longer answers."""


class Listener:
    """Calls a function after each change of a store in PostgreSQL."""

    def __init__(self, url: URL, notify: Callable[[], None], log: structlog.typing.FilteringBoundLogger) -> None:
        """Connect to `url`; call `notify` on the event loop after a change, and after each connection."""
        self._url = url
        self._notify = notify
        self._log = log
        self.connected = False
        """Whether changes are being notified now."""

    async def run(self) -> None:
        """Listen until cancelled; connect again after errors."""
        wait = FIRST_WAIT
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                if self.connected:
                    wait = FIRST_WAIT
                    self._log.warning("control store: notifications lost; connecting again", error=_one_line(error))
                else:
                    self._log.debug("control store: cannot listen", error=_one_line(error))
            finally:
                self.connected = False
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _listen(self) -> None:
        target = self._url.set(drivername="postgresql").update_query_dict(
            {name: value for name, value in _KEEPALIVE.items() if name not in self._url.query}
        )
        async with await psycopg.AsyncConnection.connect(
            target.render_as_string(hide_password=False), autocommit=True
        ) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            self.connected = True
            self._notify()  # changes may have been missed before
            async for _ in connection.notifies():
                self._notify()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
