"""One file per extension; file name == YAML type."""
