"""Zipkin ⇄ OTLP in wire form: v2 JSON and protobuf both ways, v1 JSON as it comes in.

The rules are those of the OpenTelemetry specification ("OpenTelemetry to Zipkin Transformation", and read backwards),
and of the Collector's translator where it is silent. docs/topics/zipkin.md tells them, and what the format loses.
"""
