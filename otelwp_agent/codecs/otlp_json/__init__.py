"""Convert OTLP/JSON to serialized protobuf and back, for traces, metrics and logs.

Both directions use tables that are built from the protobuf descriptors when a signal is first used. So every field has
a codec, also deprecated fields and those of later versions of opentelemetry-proto. The JSON format is protobuf's JSON
mapping with OTLP's changes (opentelemetry-proto `docs/specification.md`, "JSON Protobuf Encoding"):

* `traceId`, `spanId`, `parentSpanId` are hex, read in both cases, written in lower case; other bytes are base64.
* 64-bit integers are written as strings, read as strings or numbers; `1.7e18` is an integer, `true` is not.
* Enums are written as numbers, read as numbers or names. NaN and the infinities are strings.
* Field names are written in lowerCamelCase, read in that or snake_case. Unknown fields are ignored.
* `null` means absent; `[]` is also read as an empty object (PHP cannot distinguish them).
"""

from otelwp_agent.codecs.otlp_json.decoding import decode
from otelwp_agent.codecs.otlp_json.encoding import encode

__all__ = ["decode", "encode"]
