"""A telemetry pipeline for WordPress hosts."""

__version__ = "0.1.0"
