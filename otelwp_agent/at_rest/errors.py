"""Errors of encrypted files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otelwp_agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence


class FileKeyError(AgentError):
    """A file is encrypted, and no configured key opens it."""

    def __init__(self, where: str, wanted: Sequence[str], given: Sequence[str]) -> None:
        """Name the file, the ids of the keys that open it, and those that are configured."""
        keys = f"key {wanted[0]}" if len(wanted) == 1 else f"one of the keys {', '.join(wanted)}"
        have = f"the configured keys are {', '.join(given)}" if given else "no key is configured"
        super().__init__(f"{where} is encrypted; it needs {keys}, and {have}: give the key with which it was written")


class SealedDataError(AgentError):
    """Encrypted data was changed, or is not what it should be."""
