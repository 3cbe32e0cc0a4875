"""Send requests to a running agent over its control socket."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import orjson

from otelwp_agent.config import blocks
from otelwp_agent.config.types import Endpoint, format_duration
from otelwp_agent.errors import AgentError, RetryableError
from otelwp_agent.telemetry import logging
from otelwp_agent.transport.http_client import HttpClient

PATIENCE = 10.0
"""Seconds to wait for the answer to a request that needs no work."""

_GOOD = range(200, 300)


class NoAnswerError(AgentError):
    """No agent listens at the socket."""


def ask(path: str, method: str, target: str, data: object = None, patience: float = PATIENCE) -> dict[str, Any]:
    """Send a request to the agent that listens on the socket `path`; return its JSON answer.

    `data` is sent as JSON; `patience` is the timeout in seconds. Raises `NoAnswerError` if no agent listens, and
    `AgentError` with the agent's message if it refuses the request.
    """
    body = b"" if data is None else orjson.dumps(data)
    return asyncio.run(_ask(os.path.abspath(path), method, target, body, patience))  # noqa: PTH100 - not resolved


async def _ask(path: str, method: str, target: str, body: bytes, patience: float) -> dict[str, Any]:
    settings = blocks.HttpClient.model_validate({"timeout": format_duration(patience)})
    client = HttpClient(settings, Endpoint(f"unix://{path}"), name="control", log=logging.get())
    try:
        response = await client.request(method, target, body, [("Content-Type", "application/json")])
    except RetryableError as error:
        if error.reason == "connect":
            reason = str(error).rpartition(": ")[2]
            raise NoAnswerError(f"no agent answers at {path}: {reason}") from error
        raise
    finally:
        await client.aclose()
    if response.status not in _GOOD:
        raise AgentError(_refusal(path, response.status, response.body))
    try:
        answer: dict[str, Any] = orjson.loads(response.body)
    except ValueError as error:
        raise AgentError(f"the process that listens at {path} is not an agent: its answer is not JSON") from error
    return answer


def _refusal(path: str, status: int, body: bytes) -> str:
    """Return the error message in the agent's answer, or one made from its status."""
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = body.decode(errors="replace").strip()
        return f"the agent at {path} refused the request: {text or status}"
