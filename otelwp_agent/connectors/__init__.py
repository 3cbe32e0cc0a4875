"""One file per connector; file name == YAML type."""
