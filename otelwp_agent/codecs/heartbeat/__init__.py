"""Heartbeats and events of plugins: their JSON, what is redacted in it, and the telemetry that they become.

Everything here is pure: bytes in, values out.
"""
