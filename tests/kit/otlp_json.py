"""OTLP/JSON by way of protobuf's own JSON codec, slow and independent of ours: what ours is compared with."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from otelwp_agent.codecs.otlp_json import decode, decoding
from otelwp_agent.codecs.otlp_json.scalars import Wrong
from otelwp_agent.errors import MalformedError
from otelwp_agent.model.messages import request_class
from tests.kit.otlp import full, meaning

if TYPE_CHECKING:
    from otelwp_agent.model.signal import Signal

CAPTURES = Path(__file__).parents[1] / "data" / "captures"

IDS = {"traceId", "spanId", "parentSpanId"}


def _with_ids(document: Any, change: Any) -> Any:
    if isinstance(document, dict):
        return {
            key: change(value) if key in IDS else _with_ids(value, change) for key, value in document.items()
        }  # fmt: skip
    return [_with_ids(value, change) for value in document] if isinstance(document, list) else document


def reference_document(signal: Signal, body: bytes) -> Any:
    """Return a request in wire form as the document that OTLP/JSON holds."""
    document = json_format.MessageToDict(full(signal, body), use_integers_for_enums=True)
    return _with_ids(document, lambda value: base64.b64decode(value).hex())


def reference_meaning(signal: Signal, document: Any) -> bytes:
    """Return what an OTLP/JSON document means (see `tests.kit.otlp.meaning`)."""
    in_base64 = _with_ids(document, lambda value: base64.b64encode(bytes.fromhex(value)).decode())
    message = json_format.ParseDict(in_base64, request_class(signal)(), ignore_unknown_fields=True)
    return message.SerializeToString(deterministic=True)


def same_as_python(signal: Signal, data: bytes) -> bool:
    """Check that `decode` gives the result or error of the Python code; return whether C converted the document."""
    table, converter = decoding._requests.get(signal) or decoding._request(signal)
    try:
        document = decoding._load(data)
    except MalformedError:
        return False
    expected: bytes | str
    try:
        expected = meaning(signal, decoding._body(table, document, 1))
    except Wrong as error:
        expected = f"{decoding._place(error.path)}: {error}"
    found: bytes | str
    try:
        found = meaning(signal, decode(signal, data))
    except MalformedError as error:
        found = str(error)
    assert found == expected
    quick = None if converter is None else converter.message(document)
    assert quick is None or meaning(signal, quick) == expected
    return quick is not None
