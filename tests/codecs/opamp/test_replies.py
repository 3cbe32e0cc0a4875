from opentelemetry._opamp.proto import opamp_pb2 as published

from otelwp_agent.codecs.opamp.replies import error_reply, reply
from tests.kit.opamp import UID


def test_what_an_agent_must_send_next():
    plain = published.ServerToAgent.FromString(reply(UID.hex()))
    assert (plain.instance_uid, plain.flags) == (UID, 0)
    assert plain.capabilities & published.ServerCapabilities_AcceptsStatus
    both = published.ServerToAgent.FromString(reply(UID.hex(), needs_state=True, needs_components=True))
    assert both.flags == (
        published.ServerToAgentFlags_ReportFullState | published.ServerToAgentFlags_ReportAvailableComponents
    )
    renamed = published.ServerToAgent.FromString(reply(UID.hex(), new_uid=b"n" * 16))
    assert renamed.agent_identification.new_instance_uid == b"n" * 16


def test_errors():
    bad = published.ServerToAgent.FromString(error_reply(400, "x" * 9000, None)).error_response
    assert (bad.type, len(bad.error_message)) == (published.ServerErrorResponseType_BadRequest, 4096)
    later = published.ServerToAgent.FromString(error_reply(503, "later", 1.5)).error_response
    assert later.type == published.ServerErrorResponseType_Unavailable
    assert later.retry_info.retry_after_nanoseconds == 1_500_000_000
    bug = published.ServerToAgent.FromString(error_reply(500, "bug", None)).error_response
    assert bug.type == published.ServerErrorResponseType_Unknown
