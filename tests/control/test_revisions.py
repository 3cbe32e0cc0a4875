from sqlalchemy import create_engine, text

from otelwp_agent.control import revisions


def test_a_migrated_store(store):
    with store.read() as connection:
        assert revisions.current(connection) == revisions.HEAD
        assert revisions.needs(connection) == revisions.NEEDS[revisions.HEAD]
        assert not revisions.is_empty(connection)


def test_an_empty_database_and_one_of_another_application():
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assert (revisions.current(connection), revisions.needs(connection)) == (None, None)
        assert revisions.is_empty(connection)
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
        assert not revisions.is_empty(connection)
    engine.dispose()
