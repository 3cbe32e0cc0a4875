import json

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from otelwp_agent.admin import openapi
from otelwp_agent.admin.resources import OPERATIONS

DOCUMENT = openapi.document(OPERATIONS)


def test_the_document_is_valid():
    assert [str(error) for error in OpenAPIV31SpecValidator(json.loads(json.dumps(DOCUMENT))).iter_errors()] == []


def test_a_wrong_document_is_found():
    broken = {**DOCUMENT, "paths": {"/x/{y}": {"get": {"responses": {}}}}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_described(operation):
    found = DOCUMENT["paths"][operation.path][operation.method.lower()]
    assert found["operationId"] == operation.name
    assert str(operation.status) in found["responses"]
    assert f"`{operation.role.value}`" in found["description"]
    assert all(f"`{scope.value}`" in found["description"] for scope in operation.scopes)
    assert ("requestBody" in found) == (operation.body is not None)
    names = {each["name"] for each in found["parameters"]}
    assert set(operation.variables) <= names
    assert ("Idempotency-Key" in names) == (operation.method == "POST")


def test_nothing_else_is_described():
    described = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
    assert len(described) == len(OPERATIONS)


def test_optional_parameters_are_not_null():
    parameters = DOCUMENT["paths"]["/api/v1/tenants"]["get"]["parameters"]
    assert {each["name"]: each["schema"].get("type") for each in parameters} == {
        "limit": "integer",
        "cursor": "string",
        "plan": "string",
        "status": "string",
    }


@pytest.mark.parametrize(
    ("text", "valid"), [("a", True), ("", False), ("a b", False), ("ä", False), ("x" * 201, False)]
)
def test_idempotency_keys(text, valid):
    assert openapi.is_idempotency_key(text) == valid


def test_answers_link_to_the_operations_on_their_object():
    created = DOCUMENT["paths"]["/api/v1/tenants/{tenant}/keys"]["post"]["responses"]["201"]["links"]
    assert set(created) == {"getKey", "revokeKey", "rotateKey"}
    assert created["getKey"]["parameters"] == {"tenant": "$response.body#/tenant", "key": "$response.body#/id"}
    for operation in OPERATIONS:
        assert set(operation.gives.values()) <= set(operation.answer.model_fields if operation.answer else ())


def test_limits_of_numbers_are_described():
    numbers = [*integers(DOCUMENT)]
    assert len(numbers) > 5
    assert [each for each in numbers if "minimum" not in each or "maximum" not in each] == []


def integers(node):
    """Yield the schemas of integers that clients send."""
    if isinstance(node, dict):
        if node.get("type") == "integer" and node.get("title") != "Sequence":
            yield node
        for each in node.values():
            yield from integers(each)
    elif isinstance(node, list):
        for each in node:
            yield from integers(each)
