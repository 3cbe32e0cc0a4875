"""Convert between Jaeger's formats and serialized OTLP: JSON (read only), Thrift and protobuf."""
