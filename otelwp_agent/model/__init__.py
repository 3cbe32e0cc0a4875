"""Data of a pipeline: serialized OTLP and functions that read it. No I/O, no asyncio, no configuration."""
