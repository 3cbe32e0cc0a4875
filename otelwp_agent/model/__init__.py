"""What flows through a pipeline: batches of OTLP in wire form, and the ways to read them. No I/O, no asyncio, no config."""
