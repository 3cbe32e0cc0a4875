"""One file per processor; file name == YAML type."""
