import pytest
from sqlalchemy import make_url

from otelwp_agent.control import database
from otelwp_agent.control.database import SqliteFile, location, parse_url
from otelwp_agent.control.errors import StoreError, StoreLockedError, StoreReadOnlyError


@pytest.mark.parametrize(
    ("text", "driver", "shown"),
    [
        ("sqlite:///control.db", "sqlite", "control.db"),
        ("sqlite:////var/lib/control.db", "sqlite", "/var/lib/control.db"),
        ("postgresql://me:pw@host:5433/db?sslmode=require", "postgresql+psycopg", "postgresql://me:***@host:5433/db"),
        ("postgresql+psycopg:///db", "postgresql+psycopg", "postgresql:///db"),
    ],
)
def test_urls(text, driver, shown):
    url = parse_url(text)
    assert (url.drivername, location(url)) == (driver, shown)


def test_a_lock_is_held_by_one_only(tmp_path):
    first, second = (SqliteFile(tmp_path / "control.db", patience=0.05) for _ in range(2))
    with first.lock():
        with pytest.raises(StoreLockedError, match=r"locked it for 0\.05 s"), second.lock():
            pass
        with pytest.raises(StoreLockedError), second.lock(required=False):
            pass
    with second.lock():
        pass


def test_a_lock_that_cannot_be_created(tmp_path):
    (tmp_path / "control.db.lock").mkdir()
    file = SqliteFile(tmp_path / "control.db")
    with pytest.raises(StoreReadOnlyError, match=r"control\.db\.lock: Is a directory"), file.lock():
        pass
    with file.lock(required=False):
        pass


def test_settings_of_the_url_have_priority(monkeypatch):
    given = {}
    monkeypatch.setattr(database, "create_engine", lambda url, **options: given.update(options))
    database.postgresql_engine(make_url("postgresql+psycopg://db/x?connect_timeout=60&application_name=mine"))
    assert set(given["connect_args"]) == {"options", "tcp_user_timeout"}


def test_without_psycopg_the_extra_is_named(monkeypatch):
    def fail(*_, **__):
        raise ModuleNotFoundError(name="psycopg")

    monkeypatch.setattr(database, "create_engine", fail)
    with pytest.raises(StoreError, match=r"pip install 'otelwp-agent\[postgresql\]'"):
        database.postgresql_engine(make_url("postgresql+psycopg://db/x"))
