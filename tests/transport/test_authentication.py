import dataclasses

import pytest

from otelwp_agent.transport.authentication import Client, ClientAuthenticator, ServerAuthenticator


def test_a_client_cannot_be_changed_and_is_compared_by_identity():
    client = Client("shop", "key-1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        client.tenant = "other"
    with pytest.raises(TypeError):
        client.limits["requests"] = 1
    assert client != Client("shop", "key-1")
    assert {client: 1}[client] == 1


def test_the_contracts_cannot_be_used_unfinished():
    for contract in (ServerAuthenticator, ClientAuthenticator):
        with pytest.raises(TypeError):
            contract()


def test_a_client_that_has_one_credential_only_is_not_retried_after_a_401():
    class Fixed(ClientAuthenticator):
        def headers(self, origin, given):
            return (("authorization", "x"),)

    assert Fixed().rejected(Fixed().headers(None, {})) is False
