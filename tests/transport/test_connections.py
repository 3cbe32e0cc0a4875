import asyncio
from dataclasses import dataclass

from otelwp_agent.transport.connections import Connections
from tests.kit.http_site import Client, Site, post


@dataclass(eq=False)
class Accepted:
    peer: str
    deadline: float = 0.0
    old_at: float = 0.0
    server: object = None

    def time_is_up(self):
        pass

    def grow_old(self):
        pass

    def drain(self):
        pass

    def abort(self):
        pass


def test_connections_are_limited_in_all_and_per_peer():
    connections = Connections(4, 2)
    accepted = [Accepted(peer) for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3")]
    reasons = [connections.add(each) for each in accepted]
    assert reasons == ["", "", "connections_per_peer", "", "connections"]
    assert (len(connections), connections.excess()) == (5, 1)
    for each in accepted[1:3]:
        connections.discard(each)
        connections.discard(each)
    assert connections.add(Accepted("192.0.2.1")) == ""
    assert set(accepted) - set(connections) == {accepted[1], accepted[2]}


def test_a_session_counts_in_place_of_its_handshake():
    connections = Connections(10, 1)
    handshake, session = Accepted("192.0.2.1"), Accepted("192.0.2.1")
    connections.add(handshake)
    connections.replace(handshake, session)
    assert list(connections) == [session]
    connections.discard(session)
    assert connections.add(Accepted("192.0.2.1")) == ""


def test_unix_sockets_have_no_limit_per_peer():
    connections = Connections(10, 1)
    assert [connections.add(Accepted("")) for _ in range(3)] == ["", "", ""]


async def test_one_peer_may_have_so_many_connections():
    async with Site(max_connections_per_peer=2) as site:
        clients = [await site.connect() for _ in range(3)]
        assert (await clients[2].answer())[0] == 503
        await clients[0].close()
        async with asyncio.timeout(60):
            while len(site.server.sessions) > 2:
                await asyncio.sleep(0)
        await clients[2].close()
        clients[1].send(post())
        assert (await clients[1].answer())[0] == 200
        await clients[1].close()
        assert site.refusals == ["connections_per_peer"]


async def test_one_peer_may_send_so_many_requests(tmp_path):
    path = tmp_path / "s.sock"
    async with Site(max_requests_per_second_per_peer=2, additional_endpoints=[f"unix://{path}"]) as site:
        client = await site.connect()
        client.send(post() * 3)
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        status, headers, _ = await client.answer()
        assert (status, headers["retry-after"]) == (429, "1")
        await client.close()
        local = Client(*await asyncio.open_unix_connection(path))
        local.send(post() * 5)
        assert [(await local.answer())[0] for _ in range(5)] == [200] * 5
        await local.close()
        assert site.refusals == ["peer_rate"]


async def test_connections_far_above_the_limit_are_closed_without_an_answer(monkeypatch):
    monkeypatch.setattr("otelwp_agent.transport.http_lifetime.MAX_REFUSED", 2)
    async with Site(max_connections=1) as site:
        clients = [await site.connect() for _ in range(5)]
        assert [(await client.answer())[0] for client in clients[1:3]] == [503, 503]
        for client in clients[3:]:
            assert await client.closed()
        for client in clients:
            await client.close()
        assert site.refusals == ["connections"] * 4
