"""Jaeger's formats ⇄ OTLP in wire form: its JSON (read), its Thrift and protobuf (read and written)."""
