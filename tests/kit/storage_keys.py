"""Keys that encrypt files."""

from otelwp_agent.at_rest.keys import StorageKeys


def storage_keys(key, *previous):
    """Return keys that write with `key`, and also read with the `previous` ones."""
    return StorageKeys([key], [key, *previous])
