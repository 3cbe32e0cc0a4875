"""The server against the state machine of the library `h2` (hyper-h2).

As a client, it checks every frame that we send: an invalid one raises an error. It takes any GOAWAY frame for the end;
so draining is not compared. As a server, it judges random sequences of frames: what it accepts, we accept, with the
same requests and bodies.
"""

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from otelwp_agent.transport.http2 import frames
from otelwp_agent.transport.http2.frames import CONTINUATION, DATA, HEADERS, PRIORITY, SETTINGS, frame
from tests.transport.http2.peer import HEAD, World, head

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "x"), ("te", "trailers")]

steps = st.one_of(
    st.tuples(st.just("open"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("data"), st.integers(0, 5), st.integers(0, 40_000), st.booleans()),
    st.tuples(st.just("reset"), st.integers(0, 5)),
    st.tuples(st.just("ping")),
    st.tuples(st.just("priority"), st.integers(0, 5)),
    st.tuples(st.just("window"), st.integers(0, 100_000)),
    st.tuples(st.just("frame"), st.integers(16_384, 40_000)),
    st.tuples(st.just("more"), st.integers(1, 100_000)),
)


class Client:
    """A client of hyper-h2, connected to a server of ours by function calls."""

    def __init__(self):
        self.world = World(opened=False)
        self.peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.peer.initiate_connection()
        self.sent, self.got, self.ended, self.open = {}, {}, set(), []
        self.exchange()

    def exchange(self):
        """Pass what each side has to send to the other, until none has anything."""
        while True:
            there, back = self.peer.data_to_send(), self.world.sent()
            if not there and not back:
                break
            assert self.world.connection.receive(there, 10**6) == len(there)
            for each in back:  # one by one: hyper-h2 applies its acknowledged settings to the next call
                self.receive(frame(*each))
        assert self.world.connection.error is None

    def receive(self, data):
        for event in self.peer.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.got[event.stream_id] = self.got.get(event.stream_id, b"") + event.data
                self.peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)

    def do(self, step):
        kind, *arguments = step
        peer = self.peer
        stream = self.open[arguments[0] % len(self.open)] if self.open and arguments else None
        if kind == "open":
            stream = peer.get_next_available_stream_id()
            peer.send_headers(stream, [*FIELDS, ("x-id", str(arguments[0])), ("x-many", str(stream))])
            self.open.append(stream)
            self.sent[stream] = b""
        elif kind == "data" and stream:
            size = min(arguments[1], peer.local_flow_control_window(stream), peer.max_outbound_frame_size)
            self.sent[stream] += bytes((stream % 256,)) * size
            peer.send_data(stream, bytes((stream % 256,)) * size, end_stream=arguments[2])
            if arguments[2]:
                self.open.remove(stream)
        elif kind == "reset" and stream:
            peer.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            self.open.remove(stream)
            del self.sent[stream]
        elif kind == "ping":
            peer.ping(b"12345678")
        elif kind == "priority" and stream:
            peer.prioritize(stream, weight=7, depends_on=0)
        elif kind == "window":
            peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: arguments[0]})
        elif kind == "frame":
            peer.update_settings({h2.settings.SettingCodes.MAX_FRAME_SIZE: arguments[0]})
        elif kind == "more":
            peer.increment_flow_control_window(arguments[0])


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40), st.booleans())
def test_a_client_of_hyper_h2_finds_no_fault(script, together):
    client = Client()
    client.world.connection.pings._min_time = client.world.connection.pings._idle_min_time = 0.0
    for step in script:
        client.do(step)
        if not together:
            client.exchange()
    for stream in list(client.open):
        client.do(("data", client.open.index(stream), 0, True))
    client.peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
    client.peer.increment_flow_control_window(2**30)
    client.exchange()
    assert client.ended >= client.sent.keys()
    assert {stream: body for stream, body in client.sent.items() if body} == {
        stream: body for stream, body in client.got.items() if stream in client.sent and body
    }


flags = st.sampled_from([0, 1, 4, 5, 8, 9, 0x20, 0x2D])
streams = st.sampled_from([0, 1, 2, 3, 5])
payloads = st.sampled_from([b"", b"\x00", bytes(4), bytes(5), bytes(6), bytes(8), HEAD, HEAD[:9], HEAD[9:], b"\x03abc"])
kinds = st.sampled_from(
    [DATA, HEADERS, HEADERS, PRIORITY, frames.RST_STREAM, SETTINGS, frames.PING, 7, 8, CONTINUATION, 77]
)
wild = st.one_of(
    st.builds(frame, kinds, flags, streams, payloads),
    st.builds(head, streams, st.sampled_from([4, 5])),
    st.builds(frames.window_update, streams, st.sampled_from([0, 1, 2**31 - 1])),
)


STRICTER = ("on a stream that was not opened",)
"""Rules that hyper-h2 does not check: it ignores RST_STREAM on streams that only a server opens (RFC 9113, 6.4)."""


def judged(sent):
    """Return what hyper-h2 makes of `sent` as a server: the bodies by stream, None for an error."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    peer.initiate_connection()
    bodies = {}
    try:
        for event in peer.receive_data(frames.PREFACE + frame(SETTINGS, 0, 0) + sent):
            if isinstance(event, h2.events.RequestReceived):
                bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                return None
    except (h2.exceptions.ProtocolError, ValueError, KeyError):
        return None
    return bodies


@settings(max_examples=600, deadline=None)
@given(st.lists(wild, max_size=6))
def test_what_hyper_h2_accepts_we_accept(parts):
    expected = judged(b"".join(parts))
    world = World(hold=True)
    world.send(*parts)
    if expected is None:
        return
    if world.connection.error is not None:
        assert any(rule in world.connection.error[1] for rule in STRICTER)
    else:
        assert {stream.id: stream.body for stream in world.made} == expected
        assert not any("aborted" in stream.events for stream in world.made)
