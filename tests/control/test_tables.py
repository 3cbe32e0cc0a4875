from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import StatementError

from otelwp_agent.control.tables import STATE

TIME = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))


def test_times_are_kept_in_utc_with_microseconds(store):
    with store.write() as connection:
        connection.execute(update(STATE).values(created=TIME))
        found = connection.execute(select(STATE.c.created)).scalar_one()
        assert (found, found.utcoffset()) == (TIME, timedelta(0))
        same = connection.execute(select(STATE.c.id).where(STATE.c.created == TIME.astimezone(UTC))).scalar_one()
        assert same == 1


def test_a_time_without_a_zone_is_a_bug(store):
    with store.write() as connection, pytest.raises(StatementError, match="has no time zone"):
        connection.execute(update(STATE).values(created=TIME.replace(tzinfo=None)))
