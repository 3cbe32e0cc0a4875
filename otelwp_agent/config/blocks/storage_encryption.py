"""`encryption` of files: the keys that a file is encrypted for, and those that read it."""

from __future__ import annotations

import os

from pydantic import Field, model_validator

from otelwp_agent.config.blocks.base import Block
from otelwp_agent.config.types import Secret  # noqa: TC001 - a field's annotation


class StorageEncryption(Block):
    """Encryption of files with AES-256-GCM. Each file has a key of its own, encrypted with the keys of this section.

    Keep the keys away from the disk that the files are on: in a secret store, or in memory (`/run`).
    """

    key_file: str | None = Field(None, min_length=1)
    """File with a secret key: 32 random bytes in base64 or hexadecimal, as `otelwp-agent journal new-key` writes it."""
    key: Secret | None = None
    """The secret key itself, for example `${env:OTELWP_JOURNAL_KEY}`, instead of `key_file`."""
    previous_key_files: list[str] = Field(default_factory=list, max_length=16)
    """Files with keys that were used before. They read what is still encrypted for them."""

    @model_validator(mode="after")
    def _one_key(self) -> StorageEncryption:
        message = ""
        if self.key is not None and self.key_file is not None:
            message = "give `key` or `key_file`, not both"
        elif self.key is None and self.key_file is None:
            message = "there is no key to write with: give `key_file` or `key`"
        if message:
            raise ValueError(message)
        return self

    def check_readable(self, why: str) -> None:
        """Raise `ValueError` with the reason `why` if no secret key is given."""

    def check_apart(self, directory: str) -> None:
        """Raise `ValueError` if a key file is in the directory that it encrypts."""
        inside = os.path.join(os.path.abspath(directory), "")  # noqa: PTH100, PTH118 - not resolved
        for path in (self.key_file, *self.previous_key_files):
            if path is not None and os.path.abspath(path).startswith(inside):  # noqa: PTH100 - the same
                message = (
                    f"encryption: {path} is in {directory}, which it encrypts: who has the disk would have the key. "
                    "Put it on another disk or in memory, such as /run"
                )
                raise ValueError(message)
