"""One file per exporter; file name == YAML type."""
