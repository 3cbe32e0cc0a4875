from __future__ import annotations

import subprocess
import sys

import pytest

from otelwp_agent.codecs.otlp_json.schema import ID_LENGTHS, KEY_VALUE, KEY_VALUE_LIST, repeated, request
from otelwp_agent.model.signal import Signal


@pytest.mark.parametrize("signal", Signal)
def test_the_request_of_a_signal(signal):
    descriptor = request(signal)
    assert descriptor.full_name.endswith("ServiceRequest")
    assert len(repeated(descriptor)) == 1


def test_the_names_that_the_codecs_know_exist():
    span = request(Signal.TRACES).fields[0].message_type.fields_by_name["scope_spans"].message_type
    span = span.fields_by_name["spans"].message_type
    assert set(ID_LENGTHS) <= set(span.fields_by_name)
    assert repeated(span) == {"attributes", "events", "links"}
    common = span.fields_by_name["attributes"].message_type
    assert common.full_name == KEY_VALUE
    assert KEY_VALUE_LIST in {message.full_name for message in common.file.message_types_by_name.values()}


def test_only_the_signal_that_is_used_is_loaded():
    code = (
        "import sys\n"
        "from otelwp_agent.codecs.otlp_json import decode\n"
        "from otelwp_agent.model.signal import Signal\n"
        "loaded = lambda: sorted(name.split('.')[2] for name in sys.modules\n"
        "    if name.startswith('opentelemetry.proto.') and name.endswith('_pb2') and 'service' not in name)\n"
        "assert loaded() == [], loaded()\n"
        "decode(Signal.TRACES, b'{}')\n"
        "assert loaded() == ['common', 'resource', 'trace'], loaded()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
