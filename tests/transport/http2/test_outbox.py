"""Answers within the windows of the peer."""

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import DATA, END_STREAM, HEADERS, SETTINGS, ErrorCode, frame
from tests.transport.http2.peer import OK, START, World, data, head, settings


def bodies(sent, stream=1):
    return [payload for kind, _, number, payload in sent if (kind, number) == (DATA, stream)]


def test_an_answer_waits_for_the_window_of_its_stream():
    world = World(settings=settings(window=3))
    world.send(head(), data(b"hello"))
    sent = world.sent()
    assert (bodies(sent), sent[-1][0]) == ([b"hel"], DATA)
    world.send(frames.window_update(1, 1))
    assert bodies(world.sent()) == [b"l"]
    world.send(frames.window_update(1, 100))
    assert world.sent() == [(DATA, 0, 1, b"o"), (HEADERS, 5, 1, OK)]
    assert (world.connection.streams, world.connection.blocked) == ({}, {})


def test_answers_wait_for_the_window_of_the_connection():
    world = World()
    world.connection.window = 7
    world.send(head(1), data(b"hello", 1), head(3), data(b"world", 3))
    assert bodies(world.sent(), 3) == [b"wo"]
    world.send(frames.window_update(0, 100))
    assert world.sent() == [(DATA, 0, 3, b"rld"), (HEADERS, 5, 3, OK)]


def test_another_first_window_changes_the_open_streams():
    world = World(settings=settings(window=3))
    world.send(head(), data(b"hello"))
    world.sent()
    world.send(frame(SETTINGS, 0, 0, settings(window=0)), frame(SETTINGS, 0, 0, settings(window=4)))
    assert bodies(world.sent()) == [b"l"], "3 bytes were sent already"
    world.send(frames.window_update(1, 2**31 - 5), frame(SETTINGS, 0, 0, settings(window=2**31 - 1)))
    assert world.connection.streams == {}
    held = World(hold=True)
    held.send(head(), frames.window_update(1, 2**31 - 1 - 65_535), frame(SETTINGS, 0, 0, settings(window=65_536)))
    assert held.error() is ErrorCode.FLOW_CONTROL_ERROR


def test_an_answer_that_waits_is_dropped_with_its_stream():
    world = World(settings=settings(window=0))
    world.send(head(), data(b"hello"), frames.rst_stream(1, ErrorCode.CANCEL))
    world.sent()
    world.send(frames.window_update(0, 100))
    assert (world.sent(), world.connection.blocked) == ([], {})


def test_no_frame_is_larger_than_the_peer_allows():
    world = World()
    for _ in range(3):
        world.send(frames.window_update(0, 65_535))
    world.send(frame(SETTINGS, 0, 0, settings(window=100_000)), head())
    world.send(data(bytes(40_000), flags=0), data(b"x"))
    assert [len(body) for body in bodies(world.sent())] == [16_384, 16_384, 7_233]


def test_without_trailers_the_body_is_the_end():
    for window in (0, 100):
        world = World(hold=True, settings=settings(window=window))
        world.send(head(), data())
        world.connection.respond(world.made[0], START, b"hello", b"")
        world.send(frames.window_update(1, 100))
        assert world.sent()[-1] == (DATA, END_STREAM, 1, b"hello")


def test_a_stream_that_has_ended_gets_no_second_answer():
    world = World()
    world.send(head(), data(b""))
    world.sent()
    (stream,) = world.made
    world.connection.respond(stream, START, b"", OK)
    world.connection.respond_at_once(stream, OK)
    world.connection.reset(stream, ErrorCode.CANCEL)
    assert world.sent() == []


@profile(max_examples=200)
@given(st.integers(0, 50), st.lists(st.tuples(st.sampled_from([0, 1, 3]), st.integers(1, 40)), max_size=30))
def test_no_more_is_sent_than_the_windows_allow(first, updates):
    world = World(settings=settings(window=first))
    world.connection.window = 30
    allowed = {0: 30, 1: first, 3: first}
    sent = {0: 0, 1: 0, 3: 0}
    world.send(head(1), data(b"a" * 100, 1), head(3), data(b"b" * 100, 3))
    for stream, size in [(0, 0), *updates]:
        if size:
            allowed[stream] += size
            world.send(frames.window_update(stream, size))
        for kind, _, number, payload in world.sent():
            if kind == DATA:
                sent[number] += len(payload)
                sent[0] += len(payload)
        assert all(sent[each] <= allowed[each] for each in sent)
        if world.connection.blocked:
            blocked = list(world.connection.blocked)
            assert sent[0] == allowed[0] or all(sent[each] == allowed[each] for each in blocked)
