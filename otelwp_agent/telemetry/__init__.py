"""The agent's own telemetry: metrics and logs."""
