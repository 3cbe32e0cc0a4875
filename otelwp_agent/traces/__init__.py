"""The last traces in memory, for pages that show them (the exporter `recent_traces`, the extension `ui`)."""
