"""tests/receivers/test_otlp_jaeger_json.py posts such bodies; this is about telling one from the other."""

import pytest

from otelwp_agent.codecs.json_bodies import is_jaeger


@pytest.mark.parametrize(
    ("body", "jaeger"),
    [
        (b'{"data":[]}', True),
        (b'\xef\xbb\xbf \n{ "data" : [', True),
        (b'{"total":0,"data":[{}]}', True),
        (b'{"resourceSpans":[{"data":[]}]}', False),
        (b'{"resource_spans":[]}', False),
        (b'{"x":1,"resourceSpans":[],"data":[]}', False),
        (b'{"data":{}}', True),
        (b"{}", False),
        (b"", False),
        (b"[]", False),
        (b"null", False),
    ],
)
def test_the_shape_of_a_body(body, jaeger):
    assert is_jaeger(body) is jaeger
