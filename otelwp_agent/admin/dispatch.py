"""Answer the requests of the admin API: authenticate, authorize, validate, and carry out the operation.

The dispatcher does no network I/O, so that it is tested without a socket. Operations run in the thread of the store.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError

from otelwp_agent.admin import openapi, problems
from otelwp_agent.admin.exchange import JSON, ApiAnswer
from otelwp_agent.admin.operation import TENANT, ApiCall
from otelwp_agent.admin.pages import ItemPage
from otelwp_agent.admin.problems import InvalidValue, ProblemError
from otelwp_agent.control.errors import OperationError, StoreError
from otelwp_agent.control.mutation import Actor
from otelwp_agent.control.operations.idempotency import StoredAnswer, find_answer, store_answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import structlog
    from sqlalchemy import Connection

    from otelwp_agent.admin.admission import ApiAdmission
    from otelwp_agent.admin.exchange import ApiRequest
    from otelwp_agent.admin.identity import Principal
    from otelwp_agent.admin.operation import ApiOperation
    from otelwp_agent.admin.routes import FoundOperations, RouteTable
    from otelwp_agent.control.access import ControlAccess

REPLAYED = ("Idempotency-Replayed", "true")
"""Header of a stored answer, sent again because the request has the same `Idempotency-Key`."""
MAX_PARAMETERS = 20
"""Parameters in a query."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class AdminDispatcher:
    """Answers requests."""

    def __init__(
        self,
        access: ControlAccess,
        routes: RouteTable,
        admission: ApiAdmission,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """Answer the requests that `admission` admits with the operations in `routes`."""
        self._access = access
        self._routes = routes
        self._admission = admission
        self._log = log
        self._document: tuple[int, bytes] = (-1, b"")

    async def answer(self, request: ApiRequest) -> ApiAnswer:
        """Return the answer to a request, also if it is invalid or fails."""
        given = request.headers.get("x-request-id", "")
        id_ = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        try:
            answer = await self._answer(request, id_)
        except ProblemError as error:
            answer = _problem(error, id_)
        except OperationError as error:
            answer = _problem(problems.of_operation(error), id_)
        except StoreError as error:
            self._log.warning("admin API: control store not available", request_id=id_, error=str(error))
            answer = _problem(problems.of_store(error), id_)
        except IntegrityError:
            detail = "another request changed the same objects at the same time: try again"
            answer = _problem(ProblemError(409, detail), id_)
        except Exception:  # noqa: BLE001 - answered with 500, logged, and the agent runs on
            self._log.exception("admin API: request failed", request_id=id_, method=request.method)
            answer = _problem(ProblemError(500, "this is a fault of the agent; its log has the request id"), id_)
        return replace(answer, headers=(*answer.headers, ("X-Request-Id", id_), ("Cache-Control", "no-store")))

    async def _answer(self, request: ApiRequest, id_: str) -> ApiAnswer:
        self._admission.check_host(request)
        path, _, query = request.target.partition("?")
        method = "GET" if request.method == "HEAD" else request.method
        if path == openapi.PATH:
            if method != "GET":
                raise _method_not_allowed({"GET"})
            return ApiAnswer(200, self._openapi())
        principal = await self._admission.authenticate(request)
        found = self._routes.find(path)
        if found is None:
            raise ProblemError(404, f"there is nothing at this path: see {openapi.PATH}")
        operation = found.methods.get(method)
        if operation is None:
            raise _method_not_allowed(found.methods)
        _authorize(principal, operation, found)
        return await self._run(request, operation, _call_of(id_, principal, found, self._access), path, query)

    async def _run(
        self, request: ApiRequest, operation: ApiOperation, call: ApiCall, path: str, query: str
    ) -> ApiAnswer:
        parameters = _query(operation, query)
        body = await _body(request, operation)
        call = replace(call, query=parameters, body=_validated(operation, body))
        key = request.headers.get("idempotency-key") if operation.method == "POST" else None
        if key is not None and not openapi.is_idempotency_key(key):
            detail = "Idempotency-Key must have 1 to 200 visible ASCII characters"
            raise ProblemError(422, detail, errors=[InvalidValue(parameter="Idempotency-Key", detail=detail)])
        digest = hashlib.sha256(b"\n".join((operation.method.encode(), path.encode(), body))).hexdigest()

        def work(connection: Connection) -> ApiAnswer:
            if key is None:
                return _render(operation, operation.handler(connection, call), call, path)[0]
            stored = find_answer(connection, call.actor, key, digest)
            if stored is not None:
                return ApiAnswer(stored.status, stored.response.encode(), headers=(REPLAYED,))
            answer, kept = _render(operation, operation.handler(connection, call), call, path)
            store_answer(connection, call.actor, key, digest, StoredAnswer(answer.status, kept))
            return answer

        store = self._access.store
        return await (store.write(work) if operation.mutates else store.read(work))

    def _openapi(self) -> bytes:
        version, text = self._document
        if version != self._routes.version:
            text = orjson.dumps(openapi.document(self._routes))
            self._document = self._routes.version, text
        return text


def _call_of(id_: str, principal: Principal, found: FoundOperations, access: ControlAccess) -> ApiCall:
    return ApiCall(principal, Actor(principal.name, id_), access.directory.hasher, found.path)


def _authorize(principal: Principal, operation: ApiOperation, found: FoundOperations) -> None:
    """Raise `ProblemError` if the sender may not call the operation."""
    if not principal.permits(operation.role, operation.scopes):
        if principal.role is None:
            raise ProblemError(403, "this API key does not have a scope that permits this")
        raise ProblemError(403, f"this needs the role `{operation.role.value}`")
    if principal.role is None and found.path.get(TENANT, principal.tenant) != principal.tenant:
        raise ProblemError(403, "an API key may use its own tenant only")


def _query(operation: ApiOperation, text: str) -> Any:  # noqa: ANN401 - an object of the operation's model
    """Return the validated query; raise `ProblemError`."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise ProblemError(422, f"the query is not valid: use UTF-8 and at most {MAX_PARAMETERS} parameters") from None
    names = [name for name, _ in pairs]
    for name in names:
        unknown = operation.query is None or name not in operation.query.model_fields
        detail = "there is no such parameter" if unknown else "give it once" if names.count(name) > 1 else ""
        if detail:
            error = InvalidValue(parameter=name, detail=detail)
            raise ProblemError(422, "the query has invalid parameters: see `errors`", errors=[error])
    if operation.query is None:
        return None
    try:
        return operation.query.model_validate(dict(pairs))
    except ValidationError as error:
        raise problems.of_query(error) from None


async def _body(request: ApiRequest, operation: ApiOperation) -> bytes:
    """Return the body of a request to an operation that has one; raise `ProblemError`."""
    if operation.body is None:
        return b""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise ProblemError(415, "compressed bodies are not supported: remove Content-Encoding")
    body = await request.read()
    if not body and not operation.body_required:
        return b""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON:
        raise ProblemError(415, f"the body must be JSON: send `Content-Type: {JSON}`", headers=(("Accept-Post", JSON),))
    return body


def _validated(operation: ApiOperation, body: bytes) -> Any:  # noqa: ANN401 - an object of the operation's model
    if operation.body is None:
        return None
    try:
        return operation.body.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise problems.of_body(error) from None


def _render(operation: ApiOperation, result: object, call: ApiCall, path: str) -> tuple[ApiAnswer, str]:
    """Return the answer, and its body as it is kept for repeated requests: without a new secret."""
    if operation.answer is None:
        return ApiAnswer(operation.status), ""
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(result, ItemPage):
        url = result.next_url(path, call.query)
        if url is not None:
            headers = (("Link", f'<{url}>; rel="next"'),)
        result = result.items if operation.is_array else {"items": result.items, "next": url}
    kept = {**result, operation.secret: None} if operation.secret and isinstance(result, dict) else result
    return ApiAnswer(operation.status, orjson.dumps(result), headers=headers), orjson.dumps(kept).decode()


def _problem(error: ProblemError, id_: str) -> ApiAnswer:
    return ApiAnswer(error.status, error.body(id_), problems.MEDIA_TYPE, error.headers)


def _method_not_allowed(methods: Mapping[str, object] | set[str]) -> ProblemError:
    allowed = sorted({*methods, "HEAD"} if "GET" in methods else methods)
    return ProblemError(405, f"use {' or '.join(allowed)}", headers=(("Allow", ", ".join(allowed)),))
