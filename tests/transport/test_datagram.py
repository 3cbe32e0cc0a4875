import asyncio
import socket
import stat

import pytest

from otelwp_agent.config.types import Endpoint
from otelwp_agent.errors import StartError
from otelwp_agent.transport.datagram import DatagramSocket


class Place:
    """A socket, what it took, and somebody who sends."""

    def __init__(self, endpoint="127.0.0.1:0", limit=1000, **settings):
        self.taken, self.large = [], []
        self.news = asyncio.Event()
        settings = {"name": "receivers/test", "receive_buffer": 100_000, **settings}
        self.socket = DatagramSocket(Endpoint(str(endpoint)), self.take, self.too_large, limit=limit, **settings)

    def __enter__(self):
        self.socket.start()
        return self

    def __exit__(self, *_):
        self.socket.shutdown()

    def take(self, data):
        self.taken.append(data)
        self.news.set()

    def too_large(self, size):
        self.large.append(size)
        self.news.set()

    def send(self, *datagrams):
        send(self.socket, *datagrams)

    async def until(self, count):
        async with asyncio.timeout(60):
            while len(self.taken) + len(self.large) < count:
                self.news.clear()
                await self.news.wait()


def send(to, *datagrams):
    unix = to.endpoint.unix
    with socket.socket(socket.AF_UNIX if unix else socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for each in datagrams:
            sender.sendto(each, unix or ("127.0.0.1", to.port))


@pytest.fixture(params=["udp", "unix"])
def endpoint(request, tmp_path):
    return "127.0.0.1:0" if request.param == "udp" else f"unix://{tmp_path}/a.dgram"


async def test_datagrams_are_taken_whole_and_the_too_large_told(endpoint):
    with Place(endpoint) as place:
        place.send(b"a", b"", b"b" * 1000, b"c" * 1001, b"d")
        await place.until(5)
        assert place.taken == [b"a", b"", b"b" * 1000, b"d"]
        assert place.large == [1001]
        assert place.socket.lost == 0
        assert place.socket.receive_buffer_size >= 100_000


async def test_a_unix_socket_has_its_mode_and_goes_away(tmp_path):
    path = tmp_path / "a.dgram"
    with Place(f"unix://{path}", unix_mode="0600") as place:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (place.socket.address, place.socket.port) == (f"unix://{path}", 0)
    assert not path.exists()


async def test_what_has_arrived_is_taken_before_it_ends(endpoint):
    with Place(endpoint) as place:
        place.send(*[b"x"] * 10)
    assert place.taken == [b"x"] * 10
    place.socket.shutdown()
    assert place.socket.port == 0


async def test_others_have_their_turn(monkeypatch):
    monkeypatch.setattr("otelwp_agent.transport.datagram.SLICE", 0.0)
    with Place() as place:
        place.send(*[b"x"] * 10)
        turns = 0
        while len(place.taken) < 10:
            turns += 1
            await asyncio.sleep(0)
        assert turns > 3


async def test_the_kernel_tells_what_it_had_no_room_for():
    with Place(receive_buffer=4096) as place:
        place.send(*[b"x" * 1000] * 200)
        await place.until(1)
        assert place.socket.lost == 200 - len(place.taken) > 0
        lost = place.socket.lost
    assert place.socket.lost == lost, "it is told after the end as well"


async def test_a_socket_that_a_dead_process_left_is_replaced_and_a_live_one_not(tmp_path):
    path = tmp_path / "a.dgram"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as dead:
            dead.bind(str(path))
        with Place(f"unix://{path}") as place:
            place.send(b"x")
            await place.until(1)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_UNIX, kind) as alive:
            alive.bind(str(path))
            if kind is socket.SOCK_STREAM:
                alive.listen(1)
            with pytest.raises(StartError, match=r"receivers/test: cannot listen on unix://.*another process"):
                Place(f"unix://{path}").socket.start()
        path.unlink()


async def test_a_port_in_use_is_told():
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(StartError, match="another process"):
            Place(f"127.0.0.1:{other.getsockname()[1]}").socket.start()


async def test_a_successor_takes_over(tmp_path):
    path = tmp_path / "a.dgram"
    old, new = Place(f"unix://{path}"), Place(f"unix://{path}")
    with old:
        with pytest.raises(StartError, match="receivers/test already does"):
            Place(f"unix://{path}", name="receivers/other").socket.start()
        with new:
            old.socket.shutdown()
            assert path.exists()
            new.send(b"x")
            await new.until(1)
    assert old.taken == []
    assert not path.exists()


async def test_a_successor_that_goes_first_leaves_the_old_one_serving(tmp_path):
    path = tmp_path / "a.dgram"
    with Place(f"unix://{path}") as old:
        with Place(f"unix://{path}"):
            pass
        old.send(b"x")
        await old.until(1)
    assert not path.exists()
