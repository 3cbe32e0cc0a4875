"""Convert serialized OTLP to Zipkin v2 JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from otelwp_agent.codecs.zipkin.encoding import Encoder, ScopeContext
from otelwp_agent.codecs.zipkin.fragments import json_pair, json_tag
from otelwp_agent.codecs.zipkin.records import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otelwp_agent.codecs.zipkin.endpoints import Endpoint
    from otelwp_agent.codecs.zipkin.records import Record


class JsonEncoder(Encoder[str]):
    """Writes a list of spans: first their ids and times, then what many spans have in common."""

    nothing = ""

    def __init__(self, default_service_name: str) -> None:
        """Use a default name for services without a name."""
        super().__init__(default_service_name, json_tag, json_pair)

    def _write(  # noqa: PLR0913, PLR0917 - a record: each argument is a field
        self,
        trace_id: bytes,
        span_id: bytes,
        parent: bytes,
        name: str,
        timestamp: int,
        duration: int,
        opened: str,
        written: str,
    ) -> bytes:
        if parent:
            return (
                f'{{"traceId":"{trace_id.hex()}","parentId":"{parent.hex()}","id":"{span_id.hex()}","name":{name}'
                f',"timestamp":{timestamp},"duration":{duration}{opened}{written}'
            ).encode()
        return (
            f'{{"traceId":"{trace_id.hex()}","id":"{span_id.hex()}","name":{name}'
            f',"timestamp":{timestamp},"duration":{duration}{opened}{written}'
        ).encode()

    def _written(self, context: ScopeContext[str], fragments: Sequence[str], remote: str) -> str:
        tags = ",".join(fragments)
        if context.base:
            return f"{',' if tags else ''}{tags}}}{remote}}}"
        return f',"tags":{{{tags}}}{remote}}}' if tags else f"{remote}}}"

    def _from_record(self, made: Record) -> bytes:
        return orjson.dumps(made)

    def _document(self, spans: list[bytes]) -> bytes:
        return b"[%b]" % b",".join(spans)

    def _fill(self, context: ScopeContext[str]) -> None:
        local = f',"localEndpoint":{{"serviceName":{orjson.dumps(context.service).decode()}}}'
        base = ",".join([json_tag(key, value) for key, value in context.base.items()])
        for kind in KINDS:
            head = f',"kind":"{kind}"{local}' if kind else local
            context.opened.append(f'{head},"tags":{{{base}' if base else head)

    def _endpoint(self, endpoint: Endpoint) -> str:
        return f',"remoteEndpoint":{orjson.dumps(endpoint).decode()}'

    def _annotations(self, notes: list[tuple[int, str]]) -> str:
        members = [f'{{"timestamp":{at},"value":{orjson.dumps(value).decode()}}}' for at, value in notes]
        return f',"annotations":[{",".join(members)}]'

    def _name(self, raw: bytes) -> str:
        return orjson.dumps(raw.decode(errors="replace")).decode()
