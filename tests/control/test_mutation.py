import threading

from otelwp_agent.control import audit, snapshot
from otelwp_agent.control.mutation import Actor, Mutation
from otelwp_agent.control.store import Store


def test_a_change_is_counted_and_audited(store, actor):
    with store.write() as connection:
        before = snapshot.version(connection)
        change = Mutation(connection, actor)
        assert change.version == snapshot.version(connection) == before + 1
        change.audit("test.change", "target", {"b": 1, "a": None}, {"a": "é"})
    with store.read() as connection:
        (logged,) = audit.list_events(connection)
        assert logged.event == audit.Event(
            change.now, actor.name, "test.change", "target", '{"a":null,"b":1}', '{"a":"\\u00e9"}', actor.request_id
        )


def test_changes_of_several_processes_are_in_one_chain(store, url):
    def work(name):
        mine = Store(url, patience=60)
        for number in range(10):
            with mine.write() as connection:
                Mutation(connection, Actor(name)).audit("test.change", str(number))
        mine.close()

    threads = [threading.Thread(target=work, args=(f"process {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as connection:
        found = audit.verify(connection)
        assert (found.rows, found.problems) == (30, ())
