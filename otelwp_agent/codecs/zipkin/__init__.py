"""Convert between Zipkin and serialized OTLP: v2 JSON and protobuf in both directions, v1 JSON only to OTLP.

The rules are those of the OpenTelemetry specification ("OpenTelemetry to Zipkin Transformation" and its inverse), and
of the Collector's translator for everything else. docs/topics/zipkin.md describes them, and which data the format
loses.
"""
