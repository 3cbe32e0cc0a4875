"""The OpenAPI 3.1 document of the admin API, made of the declarations that the dispatcher uses."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from otelwp_agent import __version__
from otelwp_agent.admin.operation import TENANT, ApiOperation, pattern_of
from otelwp_agent.admin.problems import MEDIA_TYPE, ProblemDetails

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

PATH = "/openapi.json"
IDEMPOTENCY_PATTERN = r"^[!-~]{1,200}$"
"""Pattern of the header `Idempotency-Key`: visible ASCII characters."""

_REF = "#/components/schemas/{model}"
_DESCRIPTION = """Tenants, plans, API keys and operators of a managed collector.

Every answer has the header `X-Request-Id`; a client may send its own. Errors are `application/problem+json` (RFC 9457).
Every change is in the audit log with the operator and the id of the request. Lists have pages: follow `next`.
A POST with the header `Idempotency-Key` is carried out once: for a day, the same request gets the same answer, without
secrets."""
_ALWAYS = (400, 401, 403, 429, 503)
_WITH_BODY = (408, 413, 415)


def document(operations: Iterable[ApiOperation]) -> dict[str, Any]:
    """Return the document that describes the operations."""
    operations = tuple(operations)
    models: dict[type[BaseModel], None] = {ProblemDetails: None}
    for each in operations:
        models.update(dict.fromkeys(model for model in (each.body, each.answer) if model is not None))
    names, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    references = {model: names[model, "validation"] for model in models}
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        described = paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, references)
        if each.gives:
            described["responses"][str(each.status)]["links"] = _links(each, operations)
    return {
        "openapi": "3.1.0",
        "info": {"title": "otelwp-agent admin API", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of an operator (`otelwp-agent operators add`), or an API key",
                },
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key"},
            },
        },
        "security": [{"token": []}, {"apiKey": []}],
    }


def _operation(operation: ApiOperation, references: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _permissions(operation),
        "tags": [operation.path.split("/")[3]],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation), *_headers(operation)],
        "responses": _responses(operation, references),
    }
    if operation.body is not None:
        result["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": references[operation.body]}},
        }
    return result


def _links(operation: ApiOperation, operations: Iterable[ApiOperation]) -> dict[str, Any]:
    """Return links to the operations on the object in the answer of `operation`."""
    parameters = {variable: f"$response.body#/{name}" for variable, name in operation.gives.items()}
    return {
        each.name: {"operationId": each.name, "parameters": parameters}
        for each in operations
        if set(each.variables) == set(operation.gives) and each is not operation
    }


def _permissions(operation: ApiOperation) -> str:
    text = f"Operators need the role `{operation.role.value}`."
    if operation.scopes:
        scopes = " or ".join(f"`{scope.value}`" for scope in operation.scopes)
        own = " of this tenant" if TENANT in operation.variables else ""
        text += f" API keys{own} need the scope {scopes}."
    return text


def _path_parameters(operation: ApiOperation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": pattern_of(name)}}
        for name in operation.variables
    ]


def _query_parameters(operation: ApiOperation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    found = []
    for name, schema in operation.query.model_json_schema()["properties"].items():
        schema.pop("title", None)
        description = schema.pop("description", "")
        options = [each for each in schema.pop("anyOf", ()) if each != {"type": "null"}]
        if options:  # a parameter is left out rather than null
            schema.pop("default", None)
            schema.update(options[0])
        found.append({"name": name, "in": "query", "description": description, "schema": schema})
    return found


def _headers(operation: ApiOperation) -> list[dict[str, Any]]:
    if operation.method != "POST":
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A new text for each change; a repeated request is not carried out again",
            "schema": {"type": "string", "pattern": IDEMPOTENCY_PATTERN},
        }
    ]


def _responses(operation: ApiOperation, references: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": HTTPStatus(operation.status).phrase}
    if operation.answer is not None:
        schema = references[operation.answer]
        if operation.is_array:
            schema = {"type": "array", "items": schema}
        success["content"] = {"application/json": {"schema": schema}}
    statuses = {*_ALWAYS}
    if operation.variables:
        statuses.add(404)
    if operation.mutates:
        statuses.update((404, 409))
    if operation.body is not None:
        statuses.update(_WITH_BODY)
    if operation.body is not None or operation.query is not None or operation.method == "POST":
        statuses.add(422)
    responses = {str(operation.status): success}
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": references[ProblemDetails]}},
        }
    return responses


def is_idempotency_key(text: str) -> bool:
    """Return whether the value of a header `Idempotency-Key` is valid."""
    return re.fullmatch(IDEMPOTENCY_PATTERN.strip("^$"), text) is not None
