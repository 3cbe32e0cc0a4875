import pytest

from otelwp_agent.admin.models import KEY_ID_PATTERN, NAME_PATTERN, ApiModel
from otelwp_agent.admin.operation import MUTATING, PREFIX, ApiOperation, pattern_of
from otelwp_agent.admin.resources import OPERATIONS
from otelwp_agent.control.operations.operators import Role

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


class _Optional(ApiModel):
    a: int = 1


class _Required(ApiModel):
    a: int


def test_what_is_derived_from_a_declaration():
    operation = ApiOperation("POST", "/a/{b}/c/{key}", "x", "X", lambda connection, call: None, body=_Required)
    assert operation.variables == ("b", "key")
    assert operation.mutates
    assert operation.body_required
    optional = ApiOperation("GET", "/a", "x", "X", lambda connection, call: None, body=_Optional)
    assert not optional.mutates
    assert not optional.body_required
    assert (pattern_of("key"), pattern_of("plan")) == (KEY_ID_PATTERN, NAME_PATTERN)


@every_operation
def test_changes_need_more_than_the_role_viewer(operation):
    assert (operation.role is Role.VIEWER) <= (operation.method not in MUTATING)
    assert operation.path.startswith(PREFIX)


@every_operation
def test_an_operation_with_an_answer_has_its_status(operation):
    assert (operation.answer is None) == (operation.status == 204)
    assert operation.secret in {"", *(operation.answer.model_fields if operation.answer else ())}
