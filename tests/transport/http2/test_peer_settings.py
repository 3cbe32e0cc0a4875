"""The settings of a peer."""

import pytest

from otelwp_agent.transport.http2.frames import ConnectionViolationError, ErrorCode
from otelwp_agent.transport.http2.peer_settings import MAX_SETTINGS, PeerSettings
from tests.transport.http2.peer import settings


def test_what_concerns_our_answers_is_kept():
    peer = PeerSettings()
    assert (peer.initial_window, peer.max_frame) == (65_535, 16_384)
    peer.update(settings(table=0, push=0, streams=1, window=5, frame=20_000, unknown=7) + settings(window=6))
    assert (peer.initial_window, peer.max_frame) == (6, 20_000)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (settings(push=2), ErrorCode.PROTOCOL_ERROR),
        (settings(window=2**31), ErrorCode.FLOW_CONTROL_ERROR),
        (settings(frame=16_383), ErrorCode.PROTOCOL_ERROR),
        (settings(frame=2**24), ErrorCode.PROTOCOL_ERROR),
        (settings(unknown=1)[:-1], ErrorCode.FRAME_SIZE_ERROR),
        (settings(unknown=1) * (MAX_SETTINGS + 1), ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_invalid_settings(payload, code):
    with pytest.raises(ConnectionViolationError) as caught:
        PeerSettings().update(payload)
    assert caught.value.code is code
