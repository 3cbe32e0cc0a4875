import pytest

from otelwp_agent.limiting.classes import FOUNDING, class_of, class_of_path
from otelwp_agent.limiting.gcra import Gcra


@pytest.mark.parametrize(("name", "allowed"), [("general", 100), ("auth", 10), ("payment", 50), ("billing", 100)])
def test_the_preset_allows_so_many_requests_in_an_hour(name, allowed):
    rate, limit = FOUNDING[class_of(name, FOUNDING)], Gcra()
    assert sum(not limit.take("user:123", rate, 0.0) for _ in range(1000)) == allowed
    later = sum(not limit.take("user:123", rate, second * 1.0) for second in range(1, 3601))
    assert later == allowed


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/auth/login", "auth"),
        ("/Payment", "payment"),
        ("/payments", "general"),
        ("/v1/traces", "general"),
        ("", "general"),
    ],
)
def test_the_class_of_a_path(path, expected):
    assert class_of_path(path, FOUNDING) == expected
