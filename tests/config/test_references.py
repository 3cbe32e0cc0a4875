import pytest
from pydantic import Field, ValidationError

from otelwp_agent.config.blocks import Block, ClientAuth, HttpServer
from otelwp_agent.config.references import Capability, ExtensionRef, references


class Outer(Block):
    servers: dict[str, HttpServer] = Field(default_factory=dict)
    clients: list[ClientAuth] = Field(default_factory=list)
    note: str = ""


def test_references_are_found_at_any_depth_with_their_paths():
    outer = Outer.model_validate(
        {
            "servers": {"a": {"auth": {"authenticator": "one"}, "middlewares": [{"id": "two"}, {"id": "three/x"}]}},
            "clients": [{"authenticator": "one"}],
            "note": "one",
        }
    )
    assert [(str(reference), reference.needs, path) for reference, path in references(outer)] == [
        ("one", Capability.SERVER_AUTHENTICATOR, ("servers", "a", "auth", "authenticator")),
        ("two", Capability.REQUEST_LIMITER, ("servers", "a", "middlewares", 0, "id")),
        ("three/x", Capability.REQUEST_LIMITER, ("servers", "a", "middlewares", 1, "id")),
        ("one", Capability.CLIENT_AUTHENTICATOR, ("clients", 0, "authenticator")),
    ]


def test_settings_without_references_have_none():
    assert [*references(Outer())] == []


@pytest.mark.parametrize("text", ["", "/", "/x", "x/", " "])
def test_an_invalid_id_is_refused(text):
    with pytest.raises(ValidationError, match="is not the id of an extension"):
        ClientAuth.model_validate({"authenticator": text})


def test_an_id_is_written_as_in_yaml_again():
    auth = ClientAuth.model_validate({"authenticator": "oauth2client / shop"})
    assert isinstance(auth.authenticator, ExtensionRef)
    assert auth.model_dump() == {"authenticator": "oauth2client/shop"}
    assert auth == ClientAuth.model_validate({"authenticator": "oauth2client/shop"})
