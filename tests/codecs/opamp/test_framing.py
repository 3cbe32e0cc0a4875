import pytest

from otelwp_agent.codecs.opamp.framing import frame, unframe
from otelwp_agent.errors import MalformedError


def test_a_message_has_a_header():
    assert frame(b"\x0a\x01x") == b"\0\x0a\x01x"
    assert unframe(b"\0\x0a\x01x") == b"\x0a\x01x"
    assert unframe(b"\0") == b""


def test_a_message_of_an_old_agent_has_none():
    assert unframe(b"\x0a\x01x") == b"\x0a\x01x"


def test_an_empty_message():
    with pytest.raises(MalformedError, match="empty"):
        unframe(b"")
