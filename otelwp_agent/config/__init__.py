"""From YAML files to checked values: loading, types and the blocks that components share."""
