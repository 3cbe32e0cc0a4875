from __future__ import annotations

import pytest
from pydantic import ValidationError

from otelwp_agent.config.attribute_actions import AttributeAction
from otelwp_agent.model.attribute_actions import Action


@pytest.mark.parametrize(
    ("settings", "action"),
    [
        ({"key": "a", "value": 123, "action": "insert"}, Action("insert", "a", value=123)),
        ({"key": "a", "value": "", "action": "UPSERT"}, Action("upsert", "a", value="")),
        ({"key": "a", "value": False, "action": "update"}, Action("update", "a", value=False)),
        ({"key": "a", "value": [1, "b"], "action": "update"}, Action("update", "a", value=[1, "b"])),
        ({"key": "a", "default_value": 1.5, "action": "insert"}, Action("insert", "a", default=1.5)),
        (
            {"key": "a", "from_context": "metadata.x", "default_value": "", "action": "insert"},
            Action("insert", "a", from_context="metadata.x", default=""),
        ),
        ({"key": "a", "action": "delete"}, Action("delete", "a")),
        ({"pattern": "^x", "action": "hash"}, Action("hash", pattern="^x")),
        (
            {"key": "a", "pattern": "(?P<x>.)(?:y)", "action": "extract"},
            Action("extract", "a", pattern="(?P<x>.)(?:y)"),
        ),
        ({"key": "a", "converted_type": "int", "action": "convert"}, Action("convert", "a", converted_type="int")),
    ],
)
def test_what_is_right(settings, action):
    made = AttributeAction.model_validate(settings).to_action()
    assert made == action
    assert type(made.value) is type(action.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"key": "a"}, "action"),
        ({"key": "a", "action": "remove"}, "'delete'"),
        ({"action": "insert", "value": 1}, "`insert` needs `key`"),
        ({"action": "delete"}, "`delete` needs `key` or `pattern`"),
        ({"key": "a", "action": "insert"}, "`insert` needs one of `default_value`, `from_attribute`"),
        ({"key": "a", "action": "insert", "value": None}, "needs one of"),
        ({"key": "a", "action": "upsert", "value": 1, "from_attribute": "b"}, "only one of `from_attribute`, `value`"),
        ({"key": "a", "action": "upsert", "value": 1, "pattern": "b"}, "`upsert` does not use `pattern`"),
        ({"key": "a", "action": "delete", "value": ""}, "`delete` does not use `value`"),
        ({"key": "a", "action": "hash", "converted_type": "int"}, "`hash` does not use `converted_type`"),
        ({"key": "a", "action": "extract"}, "`extract` needs `pattern`"),
        ({"key": "a", "action": "extract", "pattern": "a(b)c"}, "needs a named group"),
        ({"key": "a", "action": "extract", "pattern": "("}, "not a regular expression"),
        ({"key": "a", "action": "convert"}, "`convert` needs `converted_type`"),
        ({"key": "a", "action": "convert", "converted_type": "bool"}, "'int', 'double'"),
        ({"key": "a", "action": "insert", "value": 2**63}, "64 bits"),
        ({"key": "a", "action": "insert", "valeu": 1}, "valeu"),
    ],
)
def test_what_is_wrong_and_why(settings, told):
    with pytest.raises(ValidationError, match=told):
        AttributeAction.model_validate(settings)
