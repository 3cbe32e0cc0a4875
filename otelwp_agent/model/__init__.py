"""What flows through a pipeline: OTLP in wire form, and the ways to read it. No I/O, no asyncio, no configuration."""
