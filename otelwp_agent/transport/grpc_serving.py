"""Answer the calls of a gRPC server: admit the sender, read the message, call the handler, report its result."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from otelwp_agent.errors import ConsumeError, refusal_for
from otelwp_agent.transport import status as statuses
from otelwp_agent.transport.gate import Caller, grpc_certificate
from otelwp_agent.transport.grpc_calls import host_of
from otelwp_agent.transport.grpc_runtime import CODES, STATUS_DETAILS, aio, grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    import structlog

    from otelwp_agent.transport.gate import Gate
    from otelwp_agent.transport.grpc_calls import Calls

    GrpcHandler = Callable[[bytes, Caller], bytes | asyncio.Future[bytes]]
    """Called with a message and its sender, whose metadata have no binary values; returns the answer."""


class CallOwner(Protocol):
    """The server that answers a call."""

    @property
    def name(self) -> str:
        """The component's name, for messages."""

    @property
    def log(self) -> structlog.typing.FilteringBoundLogger:
        """The component's logger."""

    @property
    def methods(self) -> Mapping[str, GrpcHandler]:
        """The handler of each method."""

    @property
    def gate(self) -> Gate | None:
        """The gate that admits senders; `None` admits all."""

    @property
    def on_refused(self) -> Callable[[str], None]:
        """Called with the reason of each call that is refused before its handler."""

    @property
    def waiting(self) -> set[asyncio.Future[bytes]]:
        """The answers that are pending."""


class Methods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic only in its stubs
    """Returns the handler of each method; grpcio answers other methods with UNIMPLEMENTED."""

    def __init__(self, names: Collection[str], owners: Sequence[CallOwner], calls: Calls) -> None:
        """Serve the methods `names` with the last of `owners`, which may change between calls."""
        self._known = {name: grpc.stream_unary_rpc_method_handler(_serve(owners, calls, name)) for name in names}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the handler of the method of a call, or `None`."""
        return self._known.get(handler_call_details.method)


def _serve(
    owners: Sequence[CallOwner], calls: Calls, method: str
) -> Callable[[object, aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
    """Return the coroutine function that answers calls of `method`.

    On the wire a unary call is a stream of one message. For a stream, grpcio starts the coroutine before it reads the
    message, and reads it on request. So a call can be refused, or can wait, before its message uses memory.
    """
    in_flight = calls.in_flight

    async def serve(_messages: object, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        owner = owners[-1]
        try:
            call = calls.begin(context)
        except ConsumeError as error:
            owner.on_refused(error.reason)
            return refuse(context, error)
        size = 0
        caller: Caller | None = None
        try:
            if owner.gate is not None:
                caller = _admit(owner, owner.gate, context, method)
            if in_flight.used > in_flight.soft:
                await calls.pause(call)
            message = await context.read()
            calls.arrived(call)
            if message is aio.EOF:  # type: ignore[attr-defined]  # missing in its stubs
                return b""  # cancelled, refused or without a message: no client reads the answer
            size = len(message)
            in_flight.used += size
            answer = owners[-1].methods[method](message, caller or Caller(_metadata(context)))
            return answer if isinstance(answer, bytes) else await _outcome(owner, answer)
        except ConsumeError as error:
            return refuse(context, error if caller is None else refusal_for(caller.tenant, error))
        except aio.AbortError:
            raise
        except Exception:
            owner.log.exception("request failed", server=owner.name, method=method)
            context.set_code(grpc.StatusCode.INTERNAL)
            context.set_details("internal error; the agent's log has the details")
            return b""
        finally:
            if caller is not None and caller.allowance is not None:
                caller.allowance.end()
            in_flight.used -= size
            calls.end(call)

    return serve


def _metadata(context: aio.ServicerContext[bytes, bytes]) -> dict[str, str]:
    """Return the metadata of a call without binary values."""
    return {key: value for key, value in context.invocation_metadata() or () if type(value) is str}


def _admit(owner: CallOwner, gate: Gate, context: aio.ServicerContext[bytes, bytes], method: str) -> Caller:
    """Return the sender of a call, whose allowance has begun; count and raise the error if the call is refused."""
    try:
        caller = gate.enter_call(
            _metadata(context), host_of(context.peer()), lambda: grpc_certificate(context.auth_context()), method
        )
        if caller.allowance is not None:
            gate.begin(caller.allowance)
    except ConsumeError as error:
        owner.on_refused(error.reason)
        raise
    return caller


async def abort(context: aio.ServicerContext[bytes, bytes], error: ConsumeError) -> None:
    """End a call with the status of `error`, even if it is waiting."""
    status = statuses.status_message(error)
    with contextlib.suppress(aio.AbortError, aio.UsageError, asyncio.CancelledError):
        details = ((STATUS_DETAILS, status.SerializeToString()),)
        await context.abort(CODES[status.code], status.message, details)


async def _outcome(owner: CallOwner, answer: asyncio.Future[bytes]) -> bytes:
    """Wait for a handler's answer. The handler is not cancelled when the client disconnects."""
    owner.waiting.add(answer)
    answer.add_done_callback(owner.waiting.discard)
    return await asyncio.shield(answer)


def refuse(context: aio.ServicerContext[bytes, bytes], error: ConsumeError) -> bytes:
    """Answer a call with the status of `error`."""
    status = statuses.status_message(error)
    context.set_code(CODES[status.code])
    context.set_details(status.message)
    context.set_trailing_metadata(((STATUS_DETAILS, status.SerializeToString()),))
    return b""
