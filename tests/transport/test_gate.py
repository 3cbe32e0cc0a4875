"""A gate, asked directly and through a real HTTP server; test_grpc_server.py has it behind gRPC."""

import pytest
import structlog

from otelwp_agent.errors import (
    ForbiddenError,
    InternalError,
    RetryableError,
    UnauthenticatedError,
)
from otelwp_agent.transport.gate import MAX_KNOWN, http_certificate
from tests.kit.gates import Keys, Limiter, gate, shop


def call(made, method="/m", peer="10.0.0.1", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return made.enter_call(headers, peer, lambda: None, method)


# --- decisions ---


def test_a_caller_has_the_tenant_of_its_credential_and_no_secret():
    caller = call(gate(Keys(right=shop())), x_api_key="right", user_agent="sdk")
    origin = caller.origin("otlp")
    assert (origin.tenant, origin.transport, origin.headers) == ("shop", "grpc", {"user-agent": "sdk"})
    assert origin.allowance is None


@pytest.mark.parametrize("headers", [{}, {"x_api_key": "wrong"}, {"x_api_key": ""}])
def test_every_wrong_credential_gets_the_same_answer(headers):
    with pytest.raises(UnauthenticatedError) as caught:
        call(gate(Keys(right=shop())), **headers)
    assert str(caught.value) == "a valid credential is needed"


@pytest.mark.parametrize("claimed", ["other", "", "shop, other"])
def test_a_header_that_names_another_tenant_is_forbidden(claimed):
    with pytest.raises(ForbiddenError, match="contradicts the credential"):
        call(gate(Keys(right=shop())), x_api_key="right", x_customer_id=claimed)


def test_a_header_that_repeats_the_tenant_is_accepted_and_never_makes_one():
    made = gate(Keys(right=shop(), nobody=shop(tenant="")))
    assert call(made, x_api_key="right", x_customer_id=" shop ").client.tenant == "shop"
    assert call(made, x_api_key="nobody", x_customer_id="shop").origin("otlp").tenant == ""


def test_an_answer_is_kept_until_the_version_changes_or_the_client_expires():
    now = [1000.0]
    keys = Keys(right=shop(expires_at=1060.0))
    made = gate(keys, now=lambda: now[0])
    for _ in range(3):
        call(made, x_api_key="right")
    assert len(keys.asked) == 1
    keys.version += 1
    call(made, x_api_key="right")
    assert len(keys.asked) == 2
    now[0] = 1060.0
    call(made, x_api_key="right")
    assert len(keys.asked) == 3


def test_wrong_credentials_are_not_kept_and_right_ones_are_bounded():
    keys = Keys(**{f"k{number}": shop() for number in range(MAX_KNOWN + 1)})
    made = gate(keys)
    for number in range(MAX_KNOWN + 100):
        with pytest.raises(UnauthenticatedError):
            call(made, x_api_key=f"wrong{number}")
    assert len(made._known) == 0
    for number in range(MAX_KNOWN + 1):
        call(made, x_api_key=f"k{number}")
    assert len(made._known) == 1


def test_a_limiter_learns_of_failures_and_its_ban_comes_before_the_authentication():
    keys, limiter = Keys(right=shop()), Limiter()
    made = gate(keys, limiter)
    with pytest.raises(UnauthenticatedError):
        call(made, x_api_key="wrong")
    with pytest.raises(ForbiddenError):
        call(made, x_api_key="right", x_customer_id="other")
    assert limiter.failures == [("10.0.0.1", "unauthenticated"), ("10.0.0.1", "tenant_mismatch")]
    limiter.banned.add("10.0.0.1")
    asked = len(keys.asked)
    with pytest.raises(ForbiddenError, match="banned"):
        call(made, x_api_key="right")
    assert (len(keys.asked), len(limiter.failures)) == (asked, 2)


def test_a_retryable_answer_is_no_failure_of_the_client():
    keys, limiter = Keys(), Limiter()
    keys.error = RetryableError("the keys of the issuer are being fetched", retry_after=2.0)
    with pytest.raises(RetryableError):
        call(gate(keys, limiter), x_api_key="right")
    assert limiter.failures == []


def test_a_bug_in_an_authenticator_refuses_the_request_and_is_logged():
    keys = Keys()
    keys.error = ZeroDivisionError("secret detail")
    with structlog.testing.capture_logs() as logs, pytest.raises(InternalError) as caught:
        call(gate(keys), x_api_key="right")
    assert "secret detail" not in str(caught.value)
    assert [entry["event"] for entry in logs] == ["request not admitted: an extension has a bug"]


def test_a_gate_may_only_limit():
    limiter = Limiter()
    caller = call(gate(None, limiter), x_api_key="kept")
    assert caller.client is None
    assert caller.origin("otlp").headers == {"x-api-key": "kept"}
    caller.allowance.begin()
    assert limiter.began == [(None, "10.0.0.1", "/m")]


def test_the_names_of_a_certificate():
    found = {"subject": ((("organizationName", "x"),), (("commonName", "shop"),)), "subjectAltName": (("DNS", "a.b"),)}

    class Secured:
        def getpeercert(self):
            return found

    certificate = http_certificate(Secured())
    assert (certificate.common_name, certificate.alternative_names) == ("shop", ("a.b",))
    assert http_certificate(None) is None
    found = {}
    assert http_certificate(Secured()) is None, "no certificate was verified"


# --- over HTTP ---
