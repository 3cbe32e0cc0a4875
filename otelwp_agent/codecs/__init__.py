"""Formats other than OTLP protobuf: OTLP/JSON, Jaeger and Zipkin, read into OTLP bytes and written from them."""
