"""Headers that a configuration may add are checked before anything is sent."""

import pytest

from otelwp_agent.config.http_headers import header_problem


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("X-Key", "abc \x80\t", None),
        ("", "a", "not a header name"),
        ("a b", "a", "not a header name"),
        ("é", "a", "not a header name"),
        ("x\r\nY", "a", "not a header name"),
        ("x", "s3cret\r\nY: 1", "line break"),
        ("x", "s3cret\0", "line break"),
        ("x", "s3cret\u20ac", "line break"),
        ("Content-Length", "1", "itself"),
        ("transfer-encoding", "chunked", "itself"),
    ],
)
def test_header_problems(name, value, problem):
    said = header_problem(name, value)
    assert (said is None) if problem is None else (problem in said)
    assert "s3cret" not in (said or "")
