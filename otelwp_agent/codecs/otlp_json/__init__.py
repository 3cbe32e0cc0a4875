"""OTLP/JSON ⇄ protobuf wire form, for traces, metrics and logs.

Both directions are driven by tables that are compiled from the protobuf descriptors when a signal is first met, so that
every field has its codec, deprecated ones and those of tomorrow's opentelemetry-proto included. What JSON may look like
(protobuf's JSON mapping with OTLP's changes, opentelemetry-proto `docs/specification.md`, "JSON Protobuf Encoding"):

* `traceId`, `spanId`, `parentSpanId` are hex, in either case when read, lower when written; other bytes are base64.
* 64-bit integers are strings when written, strings or numbers when read; `1.7e18` is an integer, `true` is none.
* Enums are numbers when written, numbers or names when read. NaN and the infinities are strings.
* Field names are lowerCamelCase when written, that or snake_case when read. Unknown fields are ignored.
* `null` is absent, `[]` stands for an empty object as well (PHP cannot tell them apart).
"""

from otelwp_agent.codecs.otlp_json.decoding import decode
from otelwp_agent.codecs.otlp_json.encoding import encode

__all__ = ["decode", "encode"]
