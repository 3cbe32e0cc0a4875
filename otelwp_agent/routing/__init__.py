"""Rules that decide which pipelines or exporters get an item."""
