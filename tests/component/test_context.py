import pytest

from otelwp_agent.component import ComponentId


@pytest.mark.parametrize(
    ("text", "type_", "name"),
    [
        ("batch", "batch", ""),
        ("batch/small", "batch", "small"),
        (" batch/small ", "batch", "small"),
        ("batch / small", "batch", "small"),
        ("otlp/a/b", "otlp", "a/b"),
    ],
)
def test_an_id_is_a_type_and_an_optional_name(text, type_, name):
    assert ComponentId.parse(text) == ComponentId(type_, name)


@pytest.mark.parametrize("text", ["", " ", "/", "/small", "batch/"])
def test_an_invalid_id_is_refused_with_the_correct_form(text):
    with pytest.raises(ValueError, match="is not a component id: write `type` or `type/name`"):
        ComponentId.parse(text)


@pytest.mark.parametrize("text", ["batch", "batch/small"])
def test_an_id_is_shown_as_in_yaml(text):
    assert str(ComponentId.parse(text)) == text
