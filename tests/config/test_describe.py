from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from otelwp_agent.config.describe import describe


class Inner(BaseModel):
    deep: int = 0
    """How deep."""


class Base(BaseModel):
    first: int
    """The first.

    With more to say.
    """
    silent: int = 0
    """Said by the base."""


class Model(Base):
    silent: int = 1
    told: Annotated[int, Field(description="Told otherwise.")] = 0
    """Not this."""
    nothing: int = 0
    maybe: Inner | None = None
    """Maybe one."""
    many: dict[str, list[Inner]] = Field(default_factory=dict)
    """Many."""


@pytest.mark.parametrize("again", [1, 2])
def test_fields_have_the_words_below_them(again):
    describe(Model)
    fields = {name: field.description for name, field in Model.model_fields.items()}
    assert fields == {
        "first": "The first.\n\nWith more to say.",
        "silent": "Said by the base.",
        "told": "Told otherwise.",
        "nothing": None,
        "maybe": "Maybe one.",
        "many": "Many.",
    }
    assert Inner.model_fields["deep"].description == "How deep."


def test_the_schema_has_them_too():
    describe(Model)
    schema = Model.model_json_schema()
    assert schema["properties"]["maybe"]["description"] == "Maybe one."
    assert schema["$defs"]["Inner"]["properties"]["deep"]["description"] == "How deep."
