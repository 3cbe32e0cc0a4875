"""Write the messages that a server of OpAMP sends to an agent; pure."""

from __future__ import annotations

from http import HTTPStatus

from otelwp_agent.codecs.opamp import opamp_pb2 as pb
from otelwp_agent.codecs.opamp.reports import LONGEST_MESSAGE

ACCEPTS_STATUS, ACCEPTS_EFFECTIVE_CONFIG = 0x1, 0x4
CAPABILITIES = ACCEPTS_STATUS | ACCEPTS_EFFECTIVE_CONFIG
"""The capabilities of this server, as in the specification."""
REPORT_FULL_STATE, REPORT_AVAILABLE_COMPONENTS = 0x1, 0x2
"""Flags of a reply."""
_NANOSECONDS = 1_000_000_000


def reply(instance: str, *, needs_state: bool = False, needs_components: bool = False, new_uid: bytes = b"") -> bytes:
    """Return the reply to a report of `instance` (hexadecimal), which says what the agent must send next."""
    message = pb.ServerToAgent(
        instance_uid=bytes.fromhex(instance),
        capabilities=CAPABILITIES,
        flags=(REPORT_FULL_STATE if needs_state else 0) | (REPORT_AVAILABLE_COMPONENTS if needs_components else 0),
    )
    if new_uid:
        message.agent_identification.new_instance_uid = new_uid
    return message.SerializeToString()


def error_reply(status: int, text: str, retry_after: float | None) -> bytes:
    """Return the reply to a report that is refused with an HTTP `status`; the agent may retry after some seconds."""
    response = pb.ServerErrorResponse(error_message=text[:LONGEST_MESSAGE])
    if retry_after is not None:
        response.type = pb.UNAVAILABLE
        response.retry_info.retry_after_nanoseconds = round(retry_after * _NANOSECONDS)
    elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
        response.type = pb.BAD_REQUEST
    return pb.ServerToAgent(error_response=response).SerializeToString()
