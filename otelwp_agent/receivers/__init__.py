"""One file per receiver; file name == YAML type."""
